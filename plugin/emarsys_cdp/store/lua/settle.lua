#!lua
--[[
Note what became of an effect that somebody has leased.

KEYS[1]  effect
KEYS[2]  queue of its shard
KEYS[3]  dead effects of its shard
ARGV[1]  id of the effect
ARGV[2]  who has leased it
ARGV[3]  its state now: sent, dead, waiting, leased
ARGV[4]  when a waiting or leased one is to be sent (ms)
ARGV[5]  note
ARGV[6]  now (ms)
ARGV[7]  seconds for which a sent or dead one is kept
ARGV[8]  its content now; absent: as it is

Returns
  1  noted; nobody holds it any more
  0  it is not the holder's (any more)
]]
local effect, queue, dead = KEYS[1], KEYS[2], KEYS[3]
local id, holder, state, due = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local note, now, seconds, content = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local old = redis.call('HMGET', effect, 'state', 'holder')
if old[1] ~= 'leased' or old[2] ~= holder then
  return 0
end
redis.call('HSET', effect, 'state', state, 'note', note, 'changed', now)
redis.call('HDEL', effect, 'holder', 'until')
if content then
  redis.call('HSET', effect, 'content', content)
end
if state == 'waiting' or state == 'leased' then
  redis.call('HSET', effect, 'until', due)
  redis.call('ZADD', queue, due, id)
  return 1
end
redis.call('ZREM', queue, id)
redis.call('EXPIRE', effect, seconds)
if state == 'dead' then
  redis.call('ZREMRANGEBYSCORE', dead, '-inf', now - seconds * 1000)
  redis.call('ZADD', dead, now, id)
  redis.call('EXPIRE', dead, seconds)
end
return 1

#!lua
--[[
Change an effect that nobody has leased from one state to another.

KEYS[1]  effect
KEYS[2]  queue of its shard
KEYS[3]  dead effects of its shard
ARGV[1]  id of the effect
ARGV[2]  the state that it has to be in: waiting, dead
ARGV[3]  its state now: withdrawn, dead, waiting
ARGV[4]  now (ms)
ARGV[5]  seconds for which a withdrawn or dead one is kept
ARGV[6]  note; absent: as it is

Returns
  1  it is in that state now, or was already
  0  it is in another one, or is not there
]]
local effect, queue, dead = KEYS[1], KEYS[2], KEYS[3]
local id, from, to, now, seconds, note = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local state = redis.call('HGET', effect, 'state')
if state == to then
  return 1
end
if state ~= from then
  return 0
end
redis.call('HSET', effect, 'state', to, 'changed', now)
if note then
  redis.call('HSET', effect, 'note', note)
end
if to == 'waiting' then
  redis.call('HSET', effect, 'until', now)
  redis.call('HDEL', effect, 'tries')
  redis.call('PERSIST', effect)
  redis.call('ZREM', dead, id)
  redis.call('ZADD', queue, now, id)
  return 1
end
redis.call('HDEL', effect, 'until')
redis.call('EXPIRE', effect, seconds)
redis.call('ZREM', queue, id)
if to == 'dead' then
  redis.call('ZREMRANGEBYSCORE', dead, '-inf', now - seconds * 1000)
  redis.call('ZADD', dead, now, id)
  redis.call('EXPIRE', dead, seconds)
end
return 1

#!lua
--[[
Give an effect to a job of the host, if no other job has it and nothing else has become of it.

KEYS[1]  effect
KEYS[2]  queue of its shard
ARGV[1]  id of the effect
ARGV[2]  job
ARGV[3]  now (ms)
ARGV[4]  seconds for which it is kept

Returns
  fields  the effect's state, content, holder, until, tries, note, changed as they are then, all nil when there is none
]]
local effect, queue = KEYS[1], KEYS[2]
local id, job, now, seconds = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local state = redis.call('HGET', effect, 'state')
if state == 'waiting' or state == 'leased' then
  redis.call('HSET', effect, 'state', 'handed', 'holder', job, 'changed', now)
  redis.call('HDEL', effect, 'until')
  redis.call('EXPIRE', effect, seconds)
  redis.call('ZREM', queue, id)
end
local fields = redis.call('HMGET', effect, 'state', 'content', 'holder', 'until', 'tries', 'note', 'changed')
return fields

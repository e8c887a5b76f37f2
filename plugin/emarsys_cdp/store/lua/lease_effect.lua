#!lua
--[[
Lease an effect that is to be sent by now.

KEYS[1]  effect
KEYS[2]  queue of its shard
ARGV[1]  id of the effect
ARGV[2]  who leases it
ARGV[3]  now (ms)
ARGV[4]  when the lease ends (ms)

Returns
  fields  leased: the effect's state, content, holder, until, tries, note, changed
  false  its time has not come, somebody has leased it, or it is not to be sent
]]
local effect, queue = KEYS[1], KEYS[2]
local id, holder, now, ends = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local state = redis.call('HGET', effect, 'state')
if state ~= 'waiting' and state ~= 'leased' then
  redis.call('ZREM', queue, id)
  return false
end
if tonumber(redis.call('HGET', effect, 'until')) > tonumber(now) then
  return false
end
redis.call('HSET', effect, 'state', 'leased', 'holder', holder, 'until', ends)
redis.call('HINCRBY', effect, 'tries', 1)
redis.call('ZADD', queue, ends, id)
local fields = redis.call('HMGET', effect, 'state', 'content', 'holder', 'until', 'tries', 'note', 'changed')
return fields

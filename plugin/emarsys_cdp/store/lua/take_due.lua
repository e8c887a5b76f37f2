#!lua
--[[
Take the timers of a shard that are due: nobody else gets them for a time.

KEYS[1]  timers
ARGV[1]  now (ms)
ARGV[2]  at most so many
ARGV[3]  when they are due again (ms)

Returns
  due  the profile ids, the longest due first
]]
local timers, now, limit, again = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local due = redis.call('ZRANGEBYSCORE', timers, '-inf', now, 'LIMIT', 0, limit)
for _, pid in ipairs(due) do
  redis.call('ZADD', timers, again, pid)
end
return due

#!lua
--[[
Remove the timer of a profile that is gone, unless it was set anew.

KEYS[1]  timers of its shard
ARGV[1]  profile id
ARGV[2]  when it was due (ms)

Returns
  1  removed
  0  there is none, or it is due at another time by now
]]
local timers, pid, again = KEYS[1], ARGV[1], ARGV[2]
local wake = redis.call('ZSCORE', timers, pid)
if not wake or tonumber(wake) ~= tonumber(again) then
  return 0
end
redis.call('ZREM', timers, pid)
return 1

#!lua
--[[
Take a name for a time, unless somebody else has it.

KEYS[1]  lease
ARGV[1]  who takes it
ARGV[2]  milliseconds until it is free again by itself

Returns
  1  taken, or had already; the time counts anew
  0  somebody else has it
]]
local key, holder, milliseconds = KEYS[1], ARGV[1], ARGV[2]
local current = redis.call('GET', key)
if current and current ~= holder then
  return 0
end
redis.call('SET', key, holder, 'PX', milliseconds)
return 1

#!lua
--[[
Give a name back.

KEYS[1]  lease
ARGV[1]  who gives it back

Returns
  1  free now
  0  it is not the giver's (any more)
]]
local key, holder = KEYS[1], ARGV[1]
if redis.call('GET', key) ~= holder then
  return 0
end
redis.call('DEL', key)
return 1

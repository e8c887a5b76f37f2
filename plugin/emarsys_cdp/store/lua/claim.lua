#!lua
--[[
Set the owner of an identifier if the row is still as it was read.

KEYS[1]  identifier row
ARGV[1]  content it was read with; empty: there was no row
ARGV[2]  new content

Returns
  1  set
  0  the row has another content by now
]]
local key, old, new = KEYS[1], ARGV[1], ARGV[2]
if (redis.call('GET', key) or '') ~= old then
  return 0
end
redis.call('SET', key, new)
return 1

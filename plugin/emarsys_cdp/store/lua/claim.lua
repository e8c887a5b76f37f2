#!lua
--[[
Set the owner of an identifier if the row is still as it was read.

KEYS[1]  identifier row
ARGV[1]  content it was read with; empty: there was no row
ARGV[2]  new content

Returns
  1  set, or set to the new content already
  0  the row has another content by now
]]
local key, old, new = KEYS[1], ARGV[1], ARGV[2]
local content = redis.call('GET', key) or ''
if content == new then
  return 1
end
if content ~= old then
  return 0
end
redis.call('SET', key, new)
return 1

#!lua
--[[
Set a state that workers share if it is still as it was read.

KEYS[1]  cell
ARGV[1]  content it was read with; empty: there was none
ARGV[2]  new content
ARGV[3]  seconds until it disappears unless it is set again

Returns
  1  set
  0  the cell has another content by now
]]
local key, old, new, ttl = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
if (redis.call('GET', key) or '') ~= old then
  return 0
end
redis.call('SET', key, new, 'EX', ttl)
return 1

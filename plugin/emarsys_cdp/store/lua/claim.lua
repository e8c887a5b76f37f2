#!lua
--[[
Set the owner of an identifier if the row is still as it was read.

KEYS[1]  identifier row
ARGV[1]  content it was read with; empty: there was no row
ARGV[2]  new content; empty: the row is removed
ARGV[3]  seconds until the row disappears; 0: never, -1: when it would have

Returns
  1  set, or set to the new content already
  0  the row has another content by now
]]
local key, old, new, ttl = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local content = redis.call('GET', key) or ''
if content ~= new and content ~= old then
  return 0
end
if new == '' then
  redis.call('DEL', key)
elseif ttl == '-1' then
  redis.call('SET', key, new, 'KEEPTTL')
elseif ttl ~= '0' then
  redis.call('SET', key, new, 'EX', ttl)
elseif content ~= new then
  redis.call('SET', key, new)
end
return 1

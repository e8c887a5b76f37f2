#!lua
--[[
Write a profile record if nobody else has written it since it was read.

KEYS[1]  record
ARGV[1]  header of the record it was computed from (format and revision, 9 bytes); empty: there was none
ARGV[2]  new record; empty: the record is removed
ARGV[3]  seconds until it disappears; 0: never

Returns
  1  written
  0  the record has another revision by now
]]
local key, expected, record, ttl = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
if redis.call('GETRANGE', key, 0, 8) ~= expected then
  return 0
end
if record == '' then
  redis.call('DEL', key)
elseif ttl == '0' then
  redis.call('SET', key, record)
else
  redis.call('SET', key, record, 'EX', ttl)
end
return 1

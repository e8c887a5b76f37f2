#!lua
--[[
Write a profile record if nobody else has written it since it was read, and with it its timer and its effects.

KEYS[1]   record
KEYS[2]   timers of its shard
KEYS[3]   queue of its shard; absent without effects
KEYS[4+]  an effect each
ARGV[1]   header of the record it was computed from (format and revision, 9 bytes); empty: there was none
ARGV[2]   new record; empty: the record is removed, and its timer
ARGV[3]   seconds until it disappears; 0: never
ARGV[4]   profile id
ARGV[5]   when the timer is due (ms); 0: it is removed, empty: it stays as it is
ARGV[6+]  of each effect: id, content, when it is to be sent (ms). One that was withdrawn waits again as it is now, any
          other that is there stays as it is

Returns
  1  written
  0  the record has another revision by now; nothing was done
]]
local key, timers, queue = KEYS[1], KEYS[2], KEYS[3]
local expected, record, ttl, pid, wake = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
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
if wake == '0' or record == '' then
  redis.call('ZREM', timers, pid)
elseif wake ~= '' then
  redis.call('ZADD', timers, wake, pid)
end
for number = 4, #KEYS do
  local effect, at = KEYS[number], 6 + 3 * (number - 4)
  local state = redis.call('HGET', effect, 'state')
  if not state or state == 'withdrawn' then
    local id, content, due = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    redis.call('DEL', effect)
    redis.call('HSET', effect, 'state', 'waiting', 'content', content, 'until', due)
    redis.call('ZADD', queue, due, id)
  end
end
return 1

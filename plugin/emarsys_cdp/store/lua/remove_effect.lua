#!lua
--[[
Remove all that is known of an effect.

KEYS[1]  effect
KEYS[2]  queue of its shard
KEYS[3]  dead effects of its shard
ARGV[1]  id of the effect

Returns
  1  there is nothing left of it
]]
local effect, queue, dead, id = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
redis.call('ZREM', queue, id)
redis.call('ZREM', dead, id)
redis.call('DEL', effect)
return 1

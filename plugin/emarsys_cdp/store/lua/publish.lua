#!lua
--[[
Put a document on a shelf if the one there is still that which the new one was made from.

KEYS[1]  revisions of the shelf
KEYS[2]  documents of the shelf
ARGV[1]  name of the document
ARGV[2]  revision it was made from; 0: there was none
ARGV[3]  new revision
ARGV[4]  new content

Returns
  1  put there
  0  another revision is there by now
]]
local revisions, documents, name, expected, revision, content = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if (redis.call('HGET', revisions, name) or '0') ~= expected then
  return 0
end
redis.call('HSET', documents, name, content)
redis.call('HSET', revisions, name, revision)
return 1

package bus

import "github.com/redis/go-redis/v9"

// What the bus knows of a log is in keys that share its name in braces:
//
//	sse:{news}:log   a stream of entries; entry 7 has the id 7-0
//	sse:{news}:meta  a hash: n is the number of the newest entry, seen that of the
//	                 newest that was seen; of logs that are written with a claim
//	                 also about, by, until, stop, closed
//	sse:{news}:ids   a hash: what was published with which message id
//	sse:{news}:ids2  the one before, when that one was full or old
//
// Numbers have no holes. So whoever stands at 7 and finds 9 has missed 8; and as
// meta lives longer than the entries, whoever stands at 7 and finds nothing while
// n is 9 has missed two. A log that is new, or forgotten, begins with the time in
// microseconds: higher than any number that it had before (if the clock was not set
// back meanwhile), so an old cursor is not taken for one of now. All this is why a gap can be told for certain, and
// why each of these scripts may run twice: go-redis repeats a call when the
// connection broke before the answer.
const clock = `
local t = redis.call('TIME')
local now = t[1] .. string.format('%06d', tonumber(t[2]))
`

const begin = `
local new = redis.call('HSETNX', meta, 'n', now)
if new == 1 then redis.call('HSET', meta, 'seen', now) end
`

// publishScript answers "number time call" of the entry with that message id:
// call is the one who published it, this one or an earlier.
var publishScript = redis.NewScript(`
local log, meta, ids, old = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local channel, id, call, body = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local keep, memory, max = tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7])
local was = redis.call('HMGET', ids, id, '')
local known, since = was[1] or redis.call('HGET', old, id), was[2]
if known then return known end
` + clock + begin + `
local n = string.format('%.0f', redis.call('HINCRBY', meta, 'n', 1))
redis.call('PEXPIRE', meta, memory)
redis.call('XADD', log, 'MAXLEN', max, n .. '-0', 'e', now .. ' ' .. body)
redis.call('PEXPIRE', log, keep)
if since and (redis.call('HLEN', ids) > 10 * max or tonumber(now) - tonumber(since) > 1000 * keep) then
	redis.call('RENAME', ids, old)
	since = nil
end
local said = n .. ' ' .. now .. ' ' .. call
redis.call('HSET', ids, id, said, '', since or now)
redis.call('PEXPIRE', ids, 2 * keep)
redis.call('PUBLISH', channel, n .. ' ' .. now .. ' ' .. body)
return said
`)

// readScript answers whether the log is new to the bus, the number of its newest
// entry, the number after which was read, and what was found: at least one, if
// there is one, but not much more bytes than asked for.
var readScript = redis.NewScript(`
local log, meta = KEYS[1], KEYS[2]
local after, count, bytes, memory = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
` + clock + begin + `
if redis.call('HEXISTS', meta, 'about') == 0 then redis.call('PEXPIRE', meta, memory) end
local n = redis.call('HGET', meta, 'n')
if after == 'now' then return {new, n, n, {}} end
if after == 'unseen' then after = redis.call('HGET', meta, 'seen') end
if after == 'start' then after = '0' end
local found, few = redis.call('XRANGE', log, '(' .. after .. '-0', '+', 'COUNT', count), {}
for i, entry in ipairs(found) do
	if bytes < 0 then break end
	few[i], bytes = entry, bytes - #entry[2][2]
end
return {new, n, after, few}
`)

var seenScript = redis.NewScript(`
local was = redis.call('HGET', KEYS[1], 'seen')
if was and tonumber(was) < tonumber(ARGV[1]) then redis.call('HSET', KEYS[1], 'seen', ARGV[1]) end
return 0
`)

var agreeScript = redis.NewScript(`
redis.call('SET', KEYS[1], ARGV[1], 'NX')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('GET', KEYS[1])
`)

// createScript answers whether the log is this call's: the name was new.
var createScript = redis.NewScript(`
local log, meta = KEYS[1], KEYS[2]
local about, call, keep = ARGV[1], ARGV[2], ARGV[3]
local made = redis.call('HGET', meta, 'made')
if made then return made == call and 1 or 0 end
redis.call('HSET', meta, 'made', call, 'about', about, 'n', '0', 'seen', '0')
redis.call('PEXPIRE', meta, keep)
redis.call('DEL', log)
return 1
`)

var aboutScript = redis.NewScript(`return redis.call('HGET', KEYS[1], 'about')`)

var stopScript = redis.NewScript(`
if redis.call('HEXISTS', KEYS[1], 'about') == 0 then return 0 end
redis.call('HSET', KEYS[1], 'stop', '1')
return 1
`)

// claimScript answers the number of entries, or why not.
var claimScript = redis.NewScript(`
local meta, by, ttl, keep = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
local m = redis.call('HMGET', meta, 'n', 'about', 'closed', 'by', 'until')
if not m[2] or m[3] then return 'lost' end
` + clock + `
if m[4] and m[4] ~= by and tonumber(m[5]) > tonumber(now) then return 'claimed' end
redis.call('HSET', meta, 'by', by, 'until', string.format('%.0f', now + 1000 * ttl))
redis.call('PEXPIRE', meta, keep)
return m[1]
`)

// appendScript writes entry number n (from 1) for the holder by, unless it is
// there; without a body it only keeps the claim. The claim holds until somebody
// else takes it, even if its time is over.
var appendScript = redis.NewScript(`
local log, meta = KEYS[1], KEYS[2]
local channel, by, n, body, last = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5] == '1'
local ttl, keep, limit = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8])
local m = redis.call('HMGET', meta, 'n', 'by', 'closed', 'stop')
if m[2] ~= by then return 'lost' end
local newest = tonumber(m[1])
if body ~= '' and n <= newest then
	if last and not (m[3] and n == newest) then return 'order' end
	return 'ok'
end
if m[3] then return 'lost' end
if m[4] and not last then return 'stop' end
` + clock + `
redis.call('HSET', meta, 'until', string.format('%.0f', now + 1000 * ttl))
redis.call('PEXPIRE', meta, keep)
redis.call('PEXPIRE', log, keep)
if body == '' then return 'ok' end
if n > newest + 1 then return 'order' end
if n > limit and not last then return 'full' end
redis.call('XADD', log, ARGV[3] .. '-0', 'e', now .. ' ' .. body)
redis.call('HSET', meta, 'n', ARGV[3])
if last then redis.call('HSET', meta, 'closed', '1') end
redis.call('PEXPIRE', log, keep)
redis.call('PUBLISH', channel, ARGV[3] .. ' ' .. now .. ' ' .. body)
return 'ok'
`)

// releaseScript wakes those who follow the log, with nothing: one of them may want
// the claim.
var releaseScript = redis.NewScript(`
if redis.call('HGET', KEYS[1], 'by') == ARGV[1] then
	redis.call('HDEL', KEYS[1], 'by', 'until')
	redis.call('PUBLISH', ARGV[2], '')
end
return 0
`)

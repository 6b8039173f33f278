"""The Lua scripts of `RedisJobStore`: each is one atomic step on the server, by the server's clock.

A script that fails half-way is not rolled back: whatever may be refused (a key of another type, a number that is none)
is looked at before the first write, and the first write is one that is refused while memory is short, if any is.

Lua counts in doubles, exact up to 2^53, which in microseconds is the year 2255. What may be greater, such as the counts
of a job, it passes on and compares as text.
"""

import hashlib

import attrs

__all__ = ["ATTEMPTS", "DELETE", "FORMAT", "GRANT", "LOAD", "RELEASE", "RENEW", "REQUEST_STOP", "SAVE", "Script"]

FORMAT = 1
"""Version of what the keys hold; each job carries it in its field `format`."""


@attrs.frozen
class Script:
    """A script, which a server that has seen it knows by its digest.

    Attributes:
        text: In Lua.
        digest: SHA-1 of the text, 40 hexadecimal digits.
    """

    text: str
    digest: str = attrs.field(init=False)

    @digest.default
    def _digest(self) -> str:
        return hashlib.sha1(self.text.encode("ascii"), usedforsecurity=False).hexdigest()


_COMMON = """
local LIMIT = 9007199254740991
local ENDED = {completed = true, incomplete = true, interrupted = true, failed = true}

local function clock()
    local time = redis.call('TIME')
    return time[1] * 1000000 + time[2]
end

local function text(number)
    return string.format('%.0f', number)
end

-- The number that a text stands for; nil if that is not between 0 and LIMIT.
local function whole(value)
    if not value or not string.find(value, '^%d+$') then return nil end
    local number = tonumber(value)
    return number <= LIMIT and number or nil
end

local function hash(key)
    local flat, row = redis.call('HGETALL', key), {}
    for place = 1, #flat, 2 do row[flat[place]] = flat[place + 1] end
    return row, #flat > 0
end
"""

# The lineage is a list with the attempts of a job, the oldest first: JSON objects whose values are all text. While the
# newest has no outcome, how far it is stands in the row of its job. What is damaged stays as it is, and stops nothing.
_LINEAGE = """
local function may_keep(key)
    local kind = redis.call('TYPE', key).ok
    return kind == 'list' or kind == 'none'
end

local function unended(key)
    if redis.call('TYPE', key).ok ~= 'list' then return nil end
    local good, one = pcall(cjson.decode, redis.call('LINDEX', key, -1))
    if not good or type(one) ~= 'table' then return nil end
    for _, value in pairs(one) do
        if type(value) ~= 'string' then return nil end
    end
    if one.outcome or not one.owner or not one.fencing_token then return nil end
    return one
end

local function used(one, row)
    return one.fencing_token == row.saved_token and row.status ~= 'pending'
end

-- A replay of dead letters leaves the number and mostly the status as they were: they do not say that it ended.
local function said(one, row)
    local moved = one.run ~= row.run or one.attempt ~= row.attempt or row.status == 'completed'
    return moved and used(one, row) and ENDED[row.status]
end

local function finish(one, row, outcome, failure, ended_at)
    if one.run ~= row.run then
        one.from_cursor, one.from_records = nil, '0'
    end
    one.to_cursor, one.to_records = row.cursor, row.processed_records
    one.run, one.attempt = row.run, row.attempt
    one.outcome, one.error, one.ended_at = outcome, failure, ended_at
    return cjson.encode(one)
end
"""

LOAD = Script(
    _COMMON
    + """
local answer = {text(clock())}
for place, key in ipairs(KEYS) do answer[place + 1] = redis.call('HGETALL', key) end
return answer
"""
)
"""KEYS: jobs. Gives the time and the fields of each job, names and values in turn."""

GRANT = Script(
    _COMMON
    + _LINEAGE
    + """
local job, index, deleted, lineage = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, owner, ttl, replacing, format, kept = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local now = clock()
local row, exists = hash(job)
redis.call('ZSCORE', index, id)

local token, newest_deleted = whole(row.fencing_token or '0'), whole(redis.call('GET', deleted) or '0')
local expires_at = whole(row.lease_expires_at or '0')
if not token then return {'damaged', 'fencing_token'} end
if not newest_deleted then return {'damaged', 'newest_deleted_token'} end
if not expires_at then return {'damaged', 'lease_expires_at'} end
local free = not row.lease_owner or row.lease_owner == owner or expires_at <= now
if replacing ~= '' then free = exists and row.fencing_token == replacing end
if not free then return {'held', row.lease_owner or '', text(expires_at)} end
local granted = math.max(token + 1, now, newest_deleted + 1)
if granted > LIMIT then return {'damaged', 'fencing_token'} end

-- The same attempt, whose first answer was lost, is still to stop.
local stop = row.lease_owner == owner and row.stop_requested == '1' and '1' or '0'
local new = {
    'fencing_token', text(granted), 'lease_owner', owner, 'lease_ttl', ttl,
    'lease_expires_at', text(now + ttl), 'stop_requested', stop,
}
if not exists then
    local fields = {
        format = format, status = 'pending', created_at = text(now), run = '0', attempt = '0', processed_records = '0',
        processed_batches = '0', dead_letters = '0', stalled_attempts = '0',
    }
    for field, value in pairs(fields) do
        row[field] = value
        new[#new + 1], new[#new + 2] = field, value
    end
end
redis.call('HSET', job, unpack(new))
redis.call('ZADD', index, 0, id)

local before = unended(lineage)
if before and before.owner == owner then
    before.fencing_token = text(granted)
    redis.call('LSET', lineage, -1, cjson.encode(before))
elseif may_keep(lineage) then
    if before then
        local outcome, failure, ended_at = 'died', nil, text(now)
        if said(before, row) then
            outcome, failure, ended_at = row.status, row.error, row.finished_at or ended_at
        end
        redis.call('LSET', lineage, -1, finish(before, row, outcome, failure, ended_at))
    end
    redis.call('RPUSH', lineage, cjson.encode({
        owner = owner, fencing_token = text(granted), started_at = text(now), run = row.run, attempt = row.attempt,
        from_cursor = row.cursor, from_records = row.processed_records,
    }))
    redis.call('LTRIM', lineage, -tonumber(kept), -1)
end
return {'granted', text(granted), text(now + ttl), stop}
"""
)
"""KEYS: job, index, newest deleted token, lineage. ARGV: id, owner, ttl in microseconds, token to replace or '',
format, number of attempts to keep. Gives `granted`, token, expiry, stop; `held`, owner, expiry; or `damaged`, field."""

SAVE = Script(
    _COMMON
    + """
local held = redis.call('HMGET', KEYS[1], 'fencing_token', 'lease_ttl', 'stop_requested')
-- A released lease has no ttl: what its owner still sends is refused.
if held[1] ~= ARGV[1] or not held[2] then return {'lost'} end
local ttl = whole(held[2])
if not ttl then return {'damaged', 'lease_ttl'} end
local expires_at, nulls = text(clock() + ttl), tonumber(ARGV[2])
redis.call('HSET', KEYS[1], 'saved_token', ARGV[1], 'lease_expires_at', expires_at, unpack(ARGV, 3 + nulls))
if nulls > 0 then redis.call('HDEL', KEYS[1], unpack(ARGV, 3, 2 + nulls)) end
return {'extended', expires_at, held[3]}
"""
)
"""KEYS: job. ARGV: token, number of fields that are None, those, then the others with their values. Gives `extended`,
expiry, stop; `lost`; or `damaged`, field."""

RENEW = Script(
    _COMMON
    + """
local held = redis.call('HMGET', KEYS[1], 'fencing_token', 'lease_ttl', 'stop_requested')
if held[1] ~= ARGV[1] or not held[2] then return {'lost'} end
local expires_at = text(clock() + ARGV[2])
redis.call('HSET', KEYS[1], 'lease_ttl', ARGV[2], 'lease_expires_at', expires_at)
return {'extended', expires_at, held[3]}
"""
)
"""KEYS: job. ARGV: token, ttl in microseconds. Gives what SAVE gives."""

RELEASE = Script(
    _COMMON
    + _LINEAGE
    + """
local job, lineage, token = KEYS[1], KEYS[2], ARGV[1]
local row = hash(job)
if row.fencing_token ~= token then return {'lost'} end
-- First what is never refused: a lease can be given back while memory is short.
redis.call('HDEL', job, 'lease_owner', 'lease_ttl', 'lease_expires_at')
redis.call('HSET', job, 'stop_requested', '0')
local one = unended(lineage)
if one and one.fencing_token == token then
    if used(one, row) then
        local outcome = ENDED[row.status] and row.status or 'interrupted'
        redis.call('LSET', lineage, -1, finish(one, row, outcome, row.error, text(clock())))
    else
        redis.call('RPOP', lineage)
    end
end
return {'released'}
"""
)
"""KEYS: job, lineage. ARGV: token. Gives `released` or `lost`."""

REQUEST_STOP = Script(
    _COMMON
    + """
local held = redis.call('HMGET', KEYS[1], 'lease_owner', 'lease_expires_at')
if held[1] and (whole(held[2]) or 0) > clock() then redis.call('HSET', KEYS[1], 'stop_requested', '1') end
return {'done'}
"""
)
"""KEYS: job."""

DELETE = Script(
    _COMMON
    + """
local job, index, deleted, lineage = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
-- Whatever is damaged goes, too: this is the way to start over.
local kind = redis.call('TYPE', job).ok
local token = kind == 'hash' and whole(redis.call('HGET', job, 'fencing_token')) or 0
local noted = redis.call('TYPE', deleted).ok == 'string' and whole(redis.call('GET', deleted))
redis.call('DEL', job, lineage)
if redis.call('TYPE', index).ok == 'zset' then redis.call('ZREM', index, ARGV[1]) end
if kind ~= 'none' or (not noted and redis.call('EXISTS', deleted) == 1) then
    redis.call('SET', deleted, text(math.max(token, noted or clock())))
end
return {'done'}
"""
)
"""KEYS as of GRANT. ARGV: id."""

ATTEMPTS = Script(
    _COMMON
    + _LINEAGE
    + """
local job, lineage = KEYS[1], KEYS[2]
if not may_keep(lineage) then return {'damaged', 'attempts'} end
local kept, one = redis.call('LRANGE', lineage, 0, -1), unended(lineage)
if one then
    local row, alive = {}, false
    if redis.call('TYPE', job).ok == 'hash' then row = hash(job) end
    if row.fencing_token == one.fencing_token then
        alive = row.lease_owner and (whole(row.lease_expires_at) or 0) > clock()
    else
        -- Without a job that it belongs to it got nowhere, as far as anybody knows.
        row = {run = one.run, attempt = one.attempt, cursor = one.from_cursor, processed_records = one.from_records}
    end
    local outcome, failure, ended_at = alive and 'running' or 'died', nil, nil
    if said(one, row) then
        outcome, failure, ended_at = row.status, row.error, row.finished_at
    end
    kept[#kept] = finish(one, row, outcome, failure, ended_at)
end
return {'kept', kept}
"""
)
"""KEYS: job, lineage. Gives `kept` and the attempts, the oldest first, each as JSON; or `damaged`, field."""

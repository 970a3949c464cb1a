-- Asks Keybearer about a request (/authz/haproxy) and says what it answered, in variables of the transaction:
--
--   txn.keybearer_status        200, 401, 403 or 429; 0 when there was no decision
--   txn.keybearer_subject, _key_id, _groups, _token_id, _expires
--                               of a 200: the values of the five identity headers; each is set, if only to nothing
--   txn.keybearer_challenge, _retry_after, _reason, _body
--                               of a refusal: what the client is to be told; unset when Keybearer did not say it
--   txn.keybearer_deprecation, _sunset
--                               of a 200: that the key is an old one, and until when; unset otherwise
--   txn.keybearer_limit, _limit_policy, _old_limit, _old_remaining, _old_reset
--                               of both: what plans leave (RateLimit, RateLimit-Policy, X-RateLimit-…); unset as well
--
-- The configuration acts on them; see haproxy.cfg. The action takes two arguments:
--
--   http-request lua.keybearer https://ADDRESS:PORT NAME     over TLS; NAME is in Keybearer's certificate
--   http-request lua.keybearer unix@PATH NAME                over its Unix socket

-- Milliseconds. A decision takes well under one; this is for a Keybearer that hangs.
local TIMEOUT = 5000

local IDENTITY = {
    keybearer_subject = "x-auth-subject",
    keybearer_key_id = "x-auth-key-id",
    keybearer_groups = "x-auth-groups",
    keybearer_token_id = "x-auth-token-id",
    keybearer_expires = "x-auth-expires",
}

local REFUSAL = {
    keybearer_challenge = "www-authenticate",
    keybearer_retry_after = "retry-after",
    keybearer_reason = "x-auth-reason",
}

local OLD_KEY = {
    keybearer_deprecation = "deprecation",
    keybearer_sunset = "sunset",
}

local LIMITS = {
    keybearer_limit = "ratelimit",
    keybearer_limit_policy = "ratelimit-policy",
    keybearer_old_limit = "x-ratelimit-limit",
    keybearer_old_remaining = "x-ratelimit-remaining",
    keybearer_old_reset = "x-ratelimit-reset",
}

-- The value of a header of the answer, which HAProxy gives as a list that begins at 0.
local function header(answer, which)
    local values = answer.headers and answer.headers[which]
    return values and values[0]
end

-- Sets the variables whose headers are there.
local function tell(txn, answer, variables)
    for variable, which in pairs(variables) do
        local value = header(answer, which)
        if value ~= nil then
            txn:set_var("txn." .. variable, value)
        end
    end
end

-- Of the client's request only the token goes along: all of it, so that two tokens are seen to be two. The rest is what
-- HAProxy itself knows of the request.
local function question(txn, name)
    local sent = txn.http:req_get_headers()
    local headers = {
        -- The name that the certificate is checked for (HAProxy takes it from here); the client's host travels below.
        ["host"] = { name },
        ["x-original-method"] = { txn.f:method() },
        -- As the client sent it, path and query; over HTTP/2 a whole URL may stand here, and only its path is meant.
        ["x-original-uri"] = { txn.f:pathq() },
        ["x-forwarded-host"] = { txn.f:req_fhdr("host") or "" },
        ["x-forwarded-proto"] = { txn.f:ssl_fc() == 1 and "https" or "http" },
        ["x-forwarded-for"] = { txn.f:src() },
    }
    local authorization = sent["authorization"]
    if authorization ~= nil then
        headers["authorization"] = {}
        for i = 0, #authorization do
            table.insert(headers["authorization"], authorization[i])
        end
    end
    return headers
end

local function ask(txn, where, name)
    local request = { url = where .. "/authz/haproxy", headers = question(txn, name), timeout = TIMEOUT }
    if where:match("^unix@") then
        request.url = "http://" .. name .. "/authz/haproxy"
        request.dst = where
    end
    local answer = core.httpclient():get(request)
    local status = answer and answer.status or 0
    if status == 200 then
        for variable, which in pairs(IDENTITY) do
            txn:set_var("txn." .. variable, header(answer, which) or "")
        end
        tell(txn, answer, OLD_KEY)
        tell(txn, answer, LIMITS)
        return status
    end
    if status == 401 or status == 403 or status == 429 then
        tell(txn, answer, REFUSAL)
        tell(txn, answer, LIMITS)
        txn:set_var("txn.keybearer_body", answer.body or "")
        return status
    end
    core.Warning("keybearer: no decision from " .. where)
    return 0
end

core.register_action("keybearer", { "http-req" }, function(txn, where, name)
    -- Whatever goes wrong in here leaves 0, which the configuration turns into 503.
    txn:set_var("txn.keybearer_status", 0)
    local done, status = pcall(ask, txn, where, name)
    if done then
        txn:set_var("txn.keybearer_status", status)
    else
        core.Warning("keybearer: " .. tostring(status))
    end
end, 2)

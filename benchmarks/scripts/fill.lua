-- Puts new keys, one a request: bench/NUMBER, from a first number on, a step apart.
-- Arguments: "RaftKV" or "etcd JSON"; the first number; the step.
-- Prints one line of JSON at the end. See benchmarks/wrk.py.

local letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(text)
  local out = {}
  for start = 1, #text, 3 do
    local a, b, c = text:byte(start, start + 2)
    local bits = a * 65536 + (b or 0) * 256 + (c or 0)
    for place = 0, 3 do
      local index = math.floor(bits / 64 ^ (3 - place)) % 64
      out[#out + 1] = letters:sub(index + 1, index + 1)
    end
    if not c then out[#out] = "=" end
    if not b then out[#out - 1] = "=" end
  end
  return table.concat(out)
end

local value = string.rep("v", 256)
local value64 = base64(value)
local is_etcd = false
local number = 0
local step = 1

function init(args)
  is_etcd = args[1] ~= "RaftKV"
  step = tonumber(args[3])
  -- wrk asks for one request that it does not send, to see whether it is one.
  number = tonumber(args[2]) - step
end

function request()
  local key = string.format("bench/%010d", number)
  number = number + step
  if is_etcd then
    local body = '{"key":"' .. base64(key) .. '","value":"' .. value64 .. '"}'
    return wrk.format("POST", "/v3/kv/put", nil, body)
  end
  return wrk.format("PUT", "/v1/kv/" .. key, nil, value)
end

-- `done`, beside this script; wrk runs it in whatever directory it was started.
dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "report.lua")

-- Sends the requests of a file over and over, one a line: METHOD PATH [BODY].
-- Arguments: the file; "cycle" (in order) or "random".
-- Each thread has one of the URLs in BENCH_URLS, and its own part of a cycle.
-- Prints one line of JSON at the end. See benchmarks/wrk.py.

local requests = {}
local count = 0
local place = 0
local random = false
local threads = 0

function setup(thread)
  threads = threads + 1
  local seen = 0
  local total = 0
  for host, port in os.getenv("BENCH_URLS"):gmatch("http://([^:%s]+):(%d+)") do
    total = total + 1
    if total == threads then
      for _, address in ipairs(wrk.lookup(host, port)) do
        if seen == 0 and wrk.connect(address) then
          thread.addr = address
          seen = 1
        end
      end
    end
  end
  thread:set("number", threads)
  thread:set("share", 1 / total)
end

function init(args)
  for line in io.lines(args[1]) do
    local method, path, body = line:match("^(%S+) (%S+) ?(.*)$")
    count = count + 1
    requests[count] = wrk.format(method, path, nil, body ~= "" and body or nil)
  end
  random = args[2] == "random"
  place = math.floor(count * share * (number - 1))
  math.randomseed(number)
end

function request()
  if random then
    return requests[math.random(count)]
  end
  place = place % count + 1
  return requests[place]
end

-- `done`, beside this script; wrk runs it in whatever directory it was started.
dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "report.lua")

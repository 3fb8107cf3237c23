-- Posts the captures of a file, again and again, each time in new conversations.
-- Arguments: the file, the name that stands in for it in conversations' ids, the run's name.

local heads, tails, at, lap, run = {}, {}, 0, 0, ""
answers, provisional = 0, 0

function init(arguments)
  local mark
  mark, run = arguments[2], arguments[3]
  for line in io.lines(arguments[1]) do
    local from, to = line:find(mark, 1, true)
    heads[#heads + 1] = line:sub(1, from - 1)
    tails[#tails + 1] = line:sub(to + 1)
  end
end

function request()
  at = at + 1
  if at > #heads then
    at, lap = 1, lap + 1
  end
  return wrk.format("POST", nil, nil, heads[at] .. run .. "." .. lap .. tails[at])
end

function response(status, headers, body)
  answers = answers + 1
  if body:find("provisional", 1, true) then
    provisional = provisional + 1
  end
end

-- Each thread has its own variables; there is one thread, which is the one that is asked here.
local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    "RESULT %d %d %d %d %d\n",
    summary.requests, summary.duration, errors.status, threads[1]:get("provisional"),
    errors.connect + errors.read + errors.write + errors.timeout
  ))
end

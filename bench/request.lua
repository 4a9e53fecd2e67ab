-- The same request over and over. Arguments: the method, the Authorization header, the body, an API's key. `COUNT` in the
-- path is another number each time. Ends with one JSON line; `curve` is how many per cent of the requests took at most so long.
function init(args)
  wrk.method = args[1]
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["Authorization"] = args[2]
  if args[3] ~= "" then wrk.body = args[3] end
  if args[4] ~= "" then wrk.headers["X-API-Key"] = args[4] end
  local before, after = wrk.path:match("^(.*)COUNT(.*)$")
  if before then
    local count = 0
    request = function()
      count = count + 1
      return wrk.format(nil, before .. count .. after)
    end
  end
end

function done(summary, latency, requests)
  local errors, points = summary.errors, {}
  for percent = 1, 99 do points[percent] = string.format("[%d,%d]", percent, latency:percentile(percent)) end
  for _, percent in ipairs({99.5, 99.9, 99.99}) do
    points[#points + 1] = string.format("[%g,%d]", percent, latency:percentile(percent))
  end
  io.write(string.format(
    '\n{"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"max_us":%d,"refused":%d,"broken":%d,"curve":[%s]}\n',
    summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), latency.max,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout, table.concat(points, ",")))
end

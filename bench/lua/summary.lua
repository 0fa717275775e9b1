-- Print wrk's counts as one line of JSON. Every script here ends with `done = require("summary")`.

return function(summary, latency)
    io.write(string.format(
        '{"requests":%d,"microseconds":%d,"bytes":%d,"bad_statuses":%d,"socket_errors":%d,"p50_us":%d,"p99_us":%d}\n',
        summary.requests,
        summary.duration,
        summary.bytes,
        summary.errors.status,
        summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
        latency:percentile(50),
        latency:percentile(99)
    ))
end

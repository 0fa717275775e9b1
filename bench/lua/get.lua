-- GET the paths in turn, each as the next user. Arguments: a file of users (a token and, for conditional requests, an
-- ETag), a file of paths.

local lines = require("lines")
local people, paths, count = nil, nil, 0

function init(arguments)
    people, paths = lines(arguments[1]), lines(arguments[2])
end

function request()
    local person = people[count % #people + 1]
    local path = paths[count % #paths + 1][1]
    count = count + 1
    wrk.headers["Authorization"] = "Bearer " .. person[1]
    wrk.headers["If-None-Match"] = person[2]
    return wrk.format("GET", path)
end

done = require("summary")

-- POST /posts, each request as the next user. Argument: a file of users (tokens).

local lines = require("lines")
local people, count = nil, 0
local body = '{"title": "benchmark", "content": "' .. string.rep("word ", 20) .. '"}'

function init(arguments)
    people = lines(arguments[1])
    wrk.headers["Content-Type"] = "application/json"
end

function request()
    wrk.headers["Authorization"] = "Bearer " .. people[count % #people + 1][1]
    count = count + 1
    return wrk.format("POST", "/posts", nil, body)
end

done = require("summary")

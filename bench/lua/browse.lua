-- GET paths, each as the next reader, and POST /vote for posts. Arguments: a file of readers (tokens), a file of voters
-- (tokens), a file of requests (`GET` and a path, or `VOTE` and the id of a post). The first vote on a post is the first
-- voter's, the second the second's and so on, so that each request adds a vote.

local lines = require("lines")
-- wrk calls `request` once without sending the result, to count the requests in it: that call is number 0 and must not
-- take a voter.
local readers, voters, requests, count, votes = nil, nil, nil, 0, {}

function init(arguments)
    readers, voters, requests = lines(arguments[1]), lines(arguments[2]), lines(arguments[3])
    wrk.headers["Content-Type"] = "application/json"
end

function request()
    local wanted = requests[(count - 1) % #requests + 1]
    local is_sent = count > 0
    count = count + 1
    if wanted[1] == "GET" then
        wrk.headers["Authorization"] = "Bearer " .. readers[count % #readers + 1][1]
        return wrk.format("GET", wanted[2])
    end
    local post = wanted[2]
    local before = votes[post] or 0
    if is_sent then
        votes[post] = before + 1
    end
    wrk.headers["Authorization"] = "Bearer " .. voters[before % #voters + 1][1]
    return wrk.format("POST", "/vote", nil, string.format('{"post_id": %s, "vote_dir": 1}', post))
end

done = require("summary")

-- POST /vote, each request as the next user for the next post. Arguments: a file of users (tokens), a file of posts
-- (ids); with "comments" as the third, these are ids of comments, voted for by PUT and DELETE. A pair recurs after
-- lcm(users, posts) requests and then retracts its vote. With many posts, no pair recurs in a run; with one post, it
-- recurs after every user has voted. So each request changes a vote.

local lines = require("lines")
-- wrk calls `request` once without sending the result, to count the requests in it: that call is number -1.
local people, posts, count, turns, on_comments = nil, nil, -1, 0, false

local function gcd(a, b)
    while b ~= 0 do
        a, b = b, a % b
    end
    return a
end

function init(arguments)
    people, posts = lines(arguments[1]), lines(arguments[2])
    on_comments = arguments[3] == "comments"
    turns = #people / gcd(#people, #posts) * #posts
    wrk.headers["Content-Type"] = "application/json"
end

function request()
    local direction = 1 - math.floor(count / turns) % 2
    wrk.headers["Authorization"] = "Bearer " .. people[count % #people + 1][1]
    local id = posts[count % #posts + 1][1]
    count = count + 1
    if on_comments then
        return wrk.format(direction == 1 and "PUT" or "DELETE", "/comments/" .. id .. "/vote")
    end
    local body = string.format('{"post_id": %s, "vote_dir": %d}', id, direction)
    return wrk.format("POST", "/vote", nil, body)
end

done = require("summary")

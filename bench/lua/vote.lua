-- POST /vote, each request as the next person for the next post. Arguments: a file of people (tokens), a file of posts
-- (ids). A pair comes again after lcm(people, posts) requests, and then takes its vote back: with many posts that is
-- never in a run, with one post after everybody's turn. So each request does real work.

local lines = require("lines")
-- wrk asks once for a request that it does not send, to see how many there are in one: that is number -1.
local people, posts, count, turns = nil, nil, -1, 0

local function gcd(a, b)
    while b ~= 0 do
        a, b = b, a % b
    end
    return a
end

function init(arguments)
    people, posts = lines(arguments[1]), lines(arguments[2])
    turns = #people / gcd(#people, #posts) * #posts
    wrk.headers["Content-Type"] = "application/json"
end

function request()
    local direction = 1 - math.floor(count / turns) % 2
    wrk.headers["Authorization"] = "Bearer " .. people[count % #people + 1][1]
    local body = string.format('{"post_id": %s, "vote_dir": %d}', posts[count % #posts + 1][1], direction)
    count = count + 1
    return wrk.format("POST", "/vote", nil, body)
end

done = require("summary")

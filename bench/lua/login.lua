-- POST /login as the next user. Arguments: a file of users (e-mail addresses), their password.

local lines = require("lines")
local people, password, count = nil, nil, 0

function init(arguments)
    people, password = lines(arguments[1]), arguments[2]
    wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"
end

function request()
    local address = people[count % #people + 1][1]:gsub("@", "%%40")
    count = count + 1
    return wrk.format("POST", "/login", nil, "username=" .. address .. "&password=" .. password)
end

done = require("summary")

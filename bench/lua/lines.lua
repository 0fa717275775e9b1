-- The lines of a file, each split at its tabs.

return function(path)
    local lines = {}
    for line in io.lines(path) do
        local fields = {}
        for field in line:gmatch("[^\t]+") do
            fields[#fields + 1] = field
        end
        lines[#lines + 1] = fields
    end
    return lines
end

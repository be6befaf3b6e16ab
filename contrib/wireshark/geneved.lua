-- Dissector for geneved's Geneve options: endpoint, labels, class and service.
--
-- Copy it to Wireshark's folder for personal Lua plugins (Help, About, Folders), or load it explicitly:
--     tshark -X lua_script:geneved.lua -r capture.pcapng -Y geneved
-- The option class is the preference geneved.class; set it to "option-class" of geneved.toml.

local DEFAULT_CLASS = 0xff47

local geneved = Proto("geneved", "geneved options")
geneved.prefs.class = Pref.uint("Option class", DEFAULT_CLASS, "Class of geneved's options, the value of [daemon] option-class")

local endpoint_types = { [0] = "simple", "scaled", "gateway", "proxied", "host" }
local kinds = { [0x01] = "endpoint", [0x02] = "labels", [0x03] = "class", [0x04] = "service" }

local f = {
    kind = ProtoField.uint8("geneved.type", "Option", base.HEX),
    critical = ProtoField.bool("geneved.critical", "Critical", 8, nil, 0x80),
    source = ProtoField.uint8("geneved.endpoint.source", "Source type", base.DEC, endpoint_types, 0xf0),
    destination = ProtoField.uint8("geneved.endpoint.destination", "Destination type", base.DEC, endpoint_types, 0x0f),
    direct = ProtoField.bool("geneved.endpoint.direct", "Direct path", 8, nil, 0x80),
    service_id = ProtoField.uint16("geneved.endpoint.service", "Service id", base.DEC),
    key = ProtoField.uint32("geneved.label.key", "Hash of key", base.HEX),
    pair = ProtoField.uint32("geneved.label.pair", "Hash of key=value", base.HEX),
    labels = ProtoField.uint8("geneved.labels", "Labels", base.DEC),
    class = ProtoField.uint8("geneved.class.id", "Class", base.DEC),
    precedence = ProtoField.uint8("geneved.class.precedence", "Drop precedence", base.DEC),
    address4 = ProtoField.ipv4("geneved.service.address", "Virtual address"),
    address6 = ProtoField.ipv6("geneved.service.address6", "Virtual address"),
    port = ProtoField.uint16("geneved.service.port", "Port", base.DEC),
    protocol = ProtoField.uint8("geneved.service.protocol", "Protocol", base.DEC),
}
for _, field in pairs(f) do
    table.insert(geneved.fields, field)
end

local malformed = ProtoExpert.new("geneved.malformed", "Invalid length or content for this option", expert.group.MALFORMED, expert.severity.ERROR)
geneved.experts = { malformed }

-- Dissectors by option. Each takes the option's data and a subtree, and returns a summary, or nil if the option is malformed.
local dissect = {}

function dissect.endpoint(data, tree)
    if data:len() ~= 4 then return nil end
    local types = data(0, 1):uint()
    tree:add(f.source, data(0, 1))
    tree:add(f.destination, data(0, 1))
    tree:add(f.direct, data(1, 1))
    tree:add(f.service_id, data(2, 2))
    local from, to = endpoint_types[bit.rshift(types, 4)], endpoint_types[bit.band(types, 0x0f)]
    if not from or not to then return nil end
    return from .. " > " .. to
end

function dissect.labels(data, tree)
    if data:len() % 8 ~= 0 then return nil end
    local count = math.floor(data:len() / 8)
    tree:add(f.labels, count):set_generated()
    for at = 0, data:len() - 8, 8 do
        tree:add(f.key, data(at, 4))
        tree:add(f.pair, data(at + 4, 4))
    end
    return count == 0 and "none" or tostring(count)
end

function dissect.class(data, tree)
    if data:len() ~= 4 then return nil end
    tree:add(f.class, data(0, 1))
    tree:add(f.precedence, data(1, 1))
    return string.format("%d, drop precedence %d", data(0, 1):uint(), data(1, 1):uint())
end

function dissect.service(data, tree)
    local length = data:len() - 4
    if length == 4 then
        tree:add(f.address4, data(0, 4))
    elseif length == 16 then
        tree:add(f.address6, data(0, 16))
    else
        return nil
    end
    tree:add(f.port, data(length, 2))
    tree:add(f.protocol, data(length + 2, 1))
    local address = length == 4 and tostring(data(0, 4):ipv4()) or "[" .. tostring(data(0, 16):ipv6()) .. "]"
    return address .. ":" .. data(length, 2):uint()
end

-- One TLV: class (16 bits), type (8), reserved (3) and length in words (5), data.
local function option(range, tree)
    local kind = range(2, 1):uint()
    local name = kinds[bit.band(kind, 0x7f)]
    if range(0, 2):uint() ~= geneved.prefs.class or not name then return false end
    local data = range:len() > 4 and range(4, range:len() - 4):tvb() or ByteArray.new():tvb("no data")
    local subtree = tree:add(geneved, range, "geneved " .. name)
    subtree:add(f.kind, range(2, 1)):append_text(" (" .. name .. ")")
    subtree:add(f.critical, range(2, 1))
    local summary = dissect[name](data, subtree)
    if summary then
        subtree:append_text(": " .. summary)
    else
        subtree:add_proto_expert_info(malformed)
    end
    return true
end

local options_of = Field.new("geneve.options")

function geneved.dissector(_, _, tree)
    for _, info in ipairs({ options_of() }) do
        local range, at = info.range, 0
        while at + 4 <= range:len() do
            local length = 4 + 4 * bit.band(range(at + 3, 1):uint(), 0x1f)
            if at + length > range:len() then break end
            option(range(at, length), tree)
            at = at + length
        end
    end
end

register_postdissector(geneved)

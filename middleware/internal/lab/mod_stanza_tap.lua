-- Writes each stanza that a client sends or receives to a file, one a line:
-- time, direction, who, stanza. For tests: this is what an operator can read.
module:set_global();

local filters = require "util.filters";

local file = assert(io.open(module:get_option_string("stanza_tap_file"), "a"));
file:setvbuf("line");

local function recorder(direction)
	return function (stanza, session)
		local who = session.full_jid or session.username or "-";
		local text = tostring(stanza):gsub("\n", "&#10;");
		file:write(os.date("!%H:%M:%S"), " ", direction, " ", who, " ", text, "\n");
		return stanza;
	end
end

local incoming, outgoing = recorder("in"), recorder("out");

local function attach(session)
	if session.type == "c2s_unauthed" or session.type == "c2s" then
		filters.add_filter(session, "stanzas/in", incoming, 1000);
		filters.add_filter(session, "stanzas/out", outgoing, -1000);
	end
end

filters.add_filter_hook(attach);

function module.unload()
	filters.remove_filter_hook(attach);
	file:close();
end

-- Each message of a stream names its model. This reads the names as they come, and keeps nothing back. One that is not in MODELS, which
-- stands before this text, becomes question marks from its first wrong byte on: the server knows no such model, and says so. What cannot be
-- read for certain is spoilt to the end of the stream.

local STREAMS = "/inference.GRPCInferenceService/ModelStreamInfer"
local MODEL_NAME, VARINT, EIGHT_BYTES, COUNTED, FOUR_BYTES = 1, 0, 1, 2, 5 -- a field of the message, and kinds of fields in protobuf
local MOST_FIELDS = 1000 -- of a message: our requests have fewer than a hundred, and each costs time
local WINDOW = 4096 -- bytes that are copied out of a chunk at once

local function begins_a_model(bytes, length)
  for _, model in ipairs(MODELS) do
    if #model == length and model:sub(1, #bytes) == bytes then return true end
  end
  return false
end

function envoy_on_request(handle)
  if handle:headers():get(":path"):sub(1, #STREAMS) ~= STREAMS then return end
  local next_chunk = handle:bodyChunks()
  local chunk, size, at, ended = nil, 0, 0, false -- `at`: bytes of the chunk that were read
  local window, window_from, window_to = "", 0, 0
  local changed, changed_to = {}, 0 -- the chunk as it is to be, up to there
  local left = 0 -- bytes of the message

  local function there() -- whether another byte is
    while at == size and not ended do
      if changed_to > 0 then
        changed[#changed + 1] = chunk:getBytes(changed_to, size - changed_to)
        chunk:setBytes(table.concat(changed))
      end
      chunk = next_chunk()
      ended = chunk == nil
      size, at, window_to, changed, changed_to = ended and 0 or chunk:length(), 0, 0, {}, 0
    end
    return not ended
  end

  local function byte()
    if not there() then return nil end
    if at >= window_to then
      window = chunk:getBytes(at, math.min(WINDOW, size - at))
      window_from, window_to = at, at + #window
    end
    at = at + 1
    return window:byte(at - window_from)
  end

  local function pass(count, character) -- so many bytes, as they are or each as this character
    while count > 0 and there() do
      local here = math.min(count, size - at)
      if character then
        changed[#changed + 1] = chunk:getBytes(changed_to, at - changed_to)
        changed[#changed + 1] = character:rep(here)
        changed_to = at + here
      end
      at, count = at + here, count - here
    end
  end

  local function again(count, character) -- from the last byte on, which is in this chunk
    if ended then return end
    at = at - 1
    pass(count, character)
  end

  local function spoil() -- no number has so many bytes, and no message begins like this
    again(math.huge, "\255")
  end

  local function number(most_bytes)
    local value = 0
    for place = 0, most_bytes - 1 do
      local found = left > 0 and byte()
      if not found then return nil end
      left, value = left - 1, value + found % 128 * 128 ^ place
      if found < 128 then return value end
    end
  end

  local function name(length)
    local bytes = ""
    for count = 1, length do
      local found = byte()
      if not found then return end
      bytes = bytes .. string.char(found)
      if not begins_a_model(bytes, length) then return again(length - count + 1, "?") end
    end
  end

  while there() do
    if byte() ~= 0 then return spoil() end -- it is compressed
    local fields = 0
    left = 0
    for _ = 1, 4 do left = left * 256 + (byte() or 0) end
    while left > 0 and not ended do
      local tag = number(5)
      if not tag or tag >= 2 ^ 32 then return spoil() end
      local field, kind, length = math.floor(tag / 8), tag % 8, nil
      if kind == VARINT then length = number(10) and 0
      elseif kind == EIGHT_BYTES then length = 8
      elseif kind == COUNTED then length = number(5)
      elseif kind == FOUR_BYTES then length = 4 end
      if field == 0 or not length or length > left or fields == MOST_FIELDS then return spoil() end
      left, fields = left - length, fields + 1
      if field == MODEL_NAME and kind == COUNTED then name(length) else pass(length) end
    end
  end
end

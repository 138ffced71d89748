-- sock.lua: streams of bytes to other programs, and being called by them.
--
-- A connection is the same thing whether it is TCP, TLS or a Unix socket, dialled or accepted.  A
-- read gives nil when the other side has ended cleanly and raises for everything else: kind
-- "transport" with a reason (timeout, reset, closed, dns, connect, tls, io), kind "limit" when what
-- was asked for did not end within its ceiling.  Every call that waits takes {timeout=seconds}.
--
--   conn:read([most])            what is there, at most so many bytes (64 KiB)
--   conn:read_exactly(n)         n bytes
--   conn:line([most])            up to and with LF
--   conn:head([most])            up to and with the first empty line
--   conn:wait()                  true as soon as there is something to read; takes nothing
--   conn:write(text)             all of it; waits while the other side is slow
--   conn:shutdown()              we have said everything; the other side may go on
--   conn:close()  conn:reset()   end it; with a reset, what is under way is lost on purpose
--   conn:timeout(seconds)        for every later call that names none; nil for none
--   conn:peer()  conn:address()  the two ends: "127.0.0.1:80", "unix:/path"
--   conn:credentials()           pid, uid and gid at the other end of a Unix socket
--   conn:traffic()               bytes received and sent so far
--   conn:is_open()
--
-- One task may read and one may write at the same time.  A write that was cut short by its timeout
-- or a cancel leaves the stream torn: later writes fail.
local core = require "worker.core.sock"
local core_listen = require "worker.core.listen"

local sock = {}

--- `sock.connect{ address="host:port" | unix="/path" | unix="@abstract" }`: a connection, or an
-- error of kind "transport".  `timeout` (10 s) covers all of it, name to TLS.  `tls = true`, or a
-- table with ca_file, ca_dir, cert, key, key_password, name (whom the certificate must belong to), min
-- ("1.2", "1.3"), alpn (the protocol to offer: "http/1.1" or "h2"), insecure.  `proxy` overrides what the
-- environment says; loopback never uses one.
-- `user_timeout` (60 s): how long sent bytes may stay unacknowledged.
sock.connect = core.connect

--- `sock.listen{ address="127.0.0.1:0" | unix="/path" }`: a listener.  Port 0 finds a free port,
-- host "*" means every interface.  A socket file gets `mode` (0600 octal) and goes with the
-- listener; a stale one of a dead process is replaced, one that is in use is an error.
-- `max_connections` is how many accepted connections may be open at once, `backlog` how many may
-- wait in the kernel.
--
--   listener:accept()    the next connection; waits
--   listener:address()   "127.0.0.1:43210" or "unix:/path"
--   listener:counts()    { open=, accepted=, pauses= }
--   listener:close()     connections already accepted live on
sock.listen = core_listen.listen

--- `sock.datagram(path, text)`: send one datagram to a Unix socket ("@x" is abstract), at once or
-- not at all.
sock.datagram = core.datagram

return sock

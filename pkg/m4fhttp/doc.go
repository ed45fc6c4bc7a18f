// Package m4fhttp is M4F over HTTP: how nodes tell each other what they have of a
// stream and give it to each other, and how players and scripts get it. It is
// plain HTTP/1.1, so that curl, ffprobe and a browser can ask too.
//
// # Requests
//
// All are GET (or HEAD) below /STREAM/m4f/. A stream's name may hold slashes;
// what follows the last /m4f/ of the path is the request.
//
//	info                    Info: tracks, target duration, ends, horizon, state
//	changes?cursor=         Change, one a line, endless
//	hours?from=&to=         Hour, one a line: the UTC hours of the view
//	segments?from=&to=      Record, one a line: the view's segments, in playing order
//	media/IDENTITY          one segment as M4F
//	media?from=&to=         the view's segments as M4F, in playing order, each whole
//	live?after=IDENTITY     segments as M4F while they are recorded, endless
//
// From and to are RFC 3339 or Unix seconds; an hour or a segment belongs to a
// span that it overlaps. Without from it begins at the beginning, without to it
// ends at the end.
//
// changes lists the records that came to the archive behind the cursor, live
// and healed alike, in the order in which they came; without a cursor all that
// are known, with cursor=now only those to come. Each second, and first of all, a
// line has the state of the stream in place of a record. A line without a cursor
// is followed by others at once. A cursor that pruning has passed is answered
// with 410: compare by hours, then go on from cursor=now.
//
// live begins behind the segment after, or with the newest. It never goes back
// on what was sent: a segment healed behind it is not sent.
//
// JSON is compact and lists are one object a line (application/x-ndjson),
// compressed with gzip where that is accepted. Media has a known length, an
// ETag, and is served by ranges (RFC 9110 14.2, one at a time). Its header boxes
// have the flags that the view has.
//
// Every refusal is problem details (RFC 9457) whose detail says what to do.
//
// # Authentication
//
// With a cluster key all of it is behind HTTP Digest access authentication (RFC
// 7616), SHA-256 and qop=auth, user m4f, the key as password. Who does not have
// the key learns nothing, not even which streams there are. m4fs is the same
// over TLS.
//
// # Trust
//
// What a peer sends is untrusted: lines, counts, lengths and times are bounded
// before anything is allocated, every segment's bytes are checked against its
// identity, words are made printable, redirects are not followed, and a peer
// that falls silent or dawdles is given up.
package m4fhttp

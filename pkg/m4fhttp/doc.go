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
//	minutes?from=&ranges=   Minutes, one a line: digests of the minutes of hours of the view
//	outline?from=&ranges=   Outline, one a line: what a comparison wants to know of the view's segments
//	segments?from=&to=      Record, one a line: the view's segments, in playing order
//	coverage?from=&to=&step=     CoverageLine, one a line: the view's stretches by state, and kept spans
//	media/IDENTITY          one segment as M4F
//	media?from=&to=         the view's segments as M4F, in playing order, each whole
//	live?after=IDENTITY     segments as M4F while they are recorded, endless
//	salvage?from=&to=       SalvageEntry, one a line: kept packets of damaged segments
//	salvage/ENTRY/hashes?coarse      its blocks: 10 bytes each
//	salvage/ENTRY/hashes?ranges=     hashes of its packets: 4 bytes each
//	salvage/ENTRY/packets?ranges=    its packets: 188 bytes each
//
// From and to are RFC 3339 or Unix seconds; an hour or a segment belongs to a
// span that it overlaps. Without from it begins at the beginning, without to it
// ends at the end.
//
// Who compares two views asks for hours, then for the minutes of those whose digests
// differ, and then for an outline of those minutes that do: 3 MB of both nodes where a
// thousand segments of a month differ. Ranges are seconds behind from,
// FROM-TO,FROM-TO with TO not included, in order, 400 at most; in place of them both
// also take to. Neither is compressed. A node of an older version answers with 404.
//
// coverage tells how long what there is of a span lasts, without its segments: it
// is what a timeline is drawn of. Stretches shorter than step seconds are merged.
//
// changes lists the records that came to the archive behind the cursor, live
// and healed alike, in the order in which they came; without a cursor all that
// are known, with cursor=now only those to come. Each second, and first of all, a
// line has the state of the stream in place of a record. A line without a cursor
// is followed by others at once, or has the one before it. To a client that sends
// Prefer: m4f-brief (RFC 7240) a state is told in full only where it has changed but
// for the source's age; it has no chain otherwise. A cursor that pruning has passed is answered
// with 410: compare by hours, then go on from cursor=now.
//
// live begins behind the segment after, or with the newest. It never goes back
// on what was sent: a segment healed behind it is not sent.
//
// salvage lists what a node has kept of segments that it could not record
// clean, for nodes that heard the same source and lost other packets. An entry
// is the copy of a stretch of transport packets, numbered from 0; ranges are
// FROM-TO,FROM-TO with TO not included, in order, 400 at most; without them it
// is all packets. Blocks and hashes are those of pkg/salvage/FORMAT.md: who has
// most of the packets finds by them which ones to ask for (salvage.Fetch). Their
// answers have a known length and are read whole and checked before the first
// byte goes out. An entry that was healed, dropped or damaged meanwhile is
// answered with 404; a node of an older version answers so to all of salvage.
//
// JSON is compact and lists are one object a line (application/x-ndjson),
// compressed with gzip where that is accepted and of use. Media has a known length, an
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

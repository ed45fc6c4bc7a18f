// Package archive keeps the segments of a stream in files.
//
// An archive is the set of its segments. Writers only ever add files, any
// number of them at once, in any number of processes, without a lock. What a
// reader sees, the view, is a function of the segments that are there, so any
// order of arrival ends in the same archive and there is nothing to repair at
// start. FORMAT.md beside this file describes the layout and every record to
// the byte; view.go is the function.
//
// # What always holds
//
//   - An extent has one writer, is made with O_EXCL and only appended to. A run
//     never opens one that is there. Nothing in it is ever changed, except back:
//     verify writes bytes again that have gone bad and that follow from the rest.
//   - A segment's bytes are in the extent before its record is in the index, and
//     that before its line is in changes. So whoever reads a line finds the
//     record, and whoever finds the record finds the bytes.
//   - Readers stop at the last whole segment of an extent. What the index lacks
//     (it is absent, short or broken) they take from the segment headers in the
//     extent. A file that a crash cut short is a shorter file, nothing more.
//   - Nothing before the horizon is shown, added, wanted or announced, whether its
//     files are still there or not, but for the hours that a kept span touches:
//     these are like any other. A comparison of archives begins at the horizon
//     unless it is told to begin earlier; a gap is only what an hour that exists
//     lacks.
//   - A segment's hour is that of its own UTC, and its duration is at most an
//     hour, so the view of an hour follows from its extents and those of the hours
//     before and after.
//
// # Steps
//
// Each list is in order. Stopping after any step (a crash, kill -9, a full disk)
// leaves what is said behind it, and going on later needs nothing but the
// operation itself. The tests stop at every call on the file system in each of
// them and compare.
//
// Create (marker.go):
//
//  1. refuse a directory that holds something, or that is below or above a stream
//  2. make the missing directories: an empty directory, which Create takes
//  3. write stream.json under a temporary name, sync it: readers pass it over
//  4. link it to its name: the stream exists; of two processes the first wins
//  5. remove the temporary name, sync the directory
//
// Append (writer.go, put):
//
//  1. for the first segment of an extent: make the hour's directory and the
//     extent, empty, with O_EXCL: an extent with no segment
//  2. append header, moof and mdat, with the init segment ahead of the first, in
//     one write: once it is whole, readers that scan the extent see the segment;
//     until then they see nothing of it
//  3. append the index record, with the index header ahead of the first: readers
//     of the index see it
//  4. with SyncAlways: fdatasync of the extent, then of the index, then fsync of
//     the hour's directory if they are new. Otherwise the same happens within the
//     sync interval, behind step 5
//  5. append the line to changes, in one write: followers see it
//
// An error in any of them takes back what was written (truncates extent and
// index to the last whole segment, removes an extent that never had one) as far
// as the disk allows, and ends the extent. Where it does not allow it, a whole
// segment may stay that Append has refused; appending it again adds a copy,
// which the view merges.
//
// An fdatasync that fails (rescue.go) ends the extent too: the system takes pages
// that it could not write for clean, so that no later fdatasync tells of them. What
// was in the extent since the last one that went well is read (its pages are
// mostly in memory still), appended to another extent with SyncAlways, and the
// first copy set aside, one segment after the other. Until that is done Append
// takes nothing; each call tries again. Stopping in between leaves a segment
// twice, which the view merges.
//
// Before each append the writer looks at the sizes and names of its files. Where
// something has cut, deleted or written to them, it ends the extent, says so in an
// event and in changes, and begins another.
//
// End of an extent (at the hour, at another init segment, at a gap, at the 33-bit
// wrap, at the end of a run, after an error):
//
//  1. make it durable as in step 4 of append
//  2. close both files. Nothing is written: an extent has no end mark
//
// Backfill is append by another writer, with another origin: hours that are over
// get further extents. Verify the identity first; Append does not. A better flag
// for a segment that is there is a copy of the segment, appended by Writer.Copy.
//
// Keep (keep.go):
//
//  1. make keep/ if there is none
//  2. publish keep/NAME.json under that name, which must be free: from here on no
//     pass of pruning removes an hour that the span touches
//  3. look at what the archive has of the span; that stays
//
// Release removes the file; what it alone kept goes with the next pass.
//
// Prune (prune.go, drop):
//
//  1. publish stream.json with the new horizon: from here on the hours before it
//     do not exist for anyone. Where the volume has no room even for that, the
//     first of the hours goes ahead of it
//  2. write the place of the first line that is kept into the header of changes,
//     in place, then free the blocks ahead of it. Offsets never move: writers
//     append and followers read on undisturbed, and a cursor from before that
//     place is answered with ErrCursorGone
//  3. for each hour, oldest first: read the kept spans again, and pass over the
//     hour if one touches it; else remove its files, then the directories that are
//     empty by that. What a stopped pass leaves, the next one removes
//
// Step 2 of keep and step 3 of prune, hour by hour, exclude each other (flock on
// the stream's directory, which a process that is killed leaves free). It is the
// only lock: neither reading nor writing takes it.
//
// A writer that is adding to an hour which is being removed either finds the
// horizon, or writes into files that nobody sees.
//
// # What limits remove
//
// Depth: the hours before now less the depth, where now is at most an hour after
// the newest live segment. A size of the stream: its own oldest hours, as long as
// the files of its hours are larger in all. Limits on the volume (how much of it is
// in use, how much is to stay free): the oldest hour of all streams that share the
// volume, and the next, whatever their size: streams keep equally far back, but for
// those whose depth is less. A limit on the use of the volume takes only from streams
// that have it. No limit on space takes the newest two hours of a stream that hold
// segments. Kept hours count towards every limit; where nothing else is left, the
// limit is missed, and told.
//
// Every limit is held to what time explains (prune_guard.go): a stream that would
// lose more than a tenth of its hours beyond it loses only what is explained. No
// clock says what a volume lacks, but files of others may fill it within a minute, or
// a limit be mistyped: there, too, the pass stops before the first hour that is too
// much, instead of taking younger ones of other streams. When less than a quarter of
// what is to stay free is left, recording would stop, which is worse: then the
// oldest hours go all the same, one by one and no more than that takes.
//
// Set aside (bad.go), by verify and by every reader that finds a segment's bytes
// to be other than its identity says, twice. What the disk cannot read, or nobody at
// present, a reader reads from another copy or not at all, and sets nothing aside;
// verify does so where a second reading, at the end of the hour and some seconds
// later, fails as well while other segments of the hour can be read:
//
//  1. append the segment's number to the extent's list, in one write: readers that
//     look at the hour now no longer see the segment. Where step 2 fails, a line that
//     takes it back follows
//  2. fdatasync of the list, fsync of the hour's directory
//  3. append a line to changes that names the extent: readers in all processes read
//     the hour afresh, and nodes compare the archive with their peers, which heals
//     it. A line that is missing, after a crash, costs them half a minute
//  4. append an event to those of the segment's time: it explains the gap
//
// A segment that comes later with the same identity is another copy, and shown.
//
// Taking back, by verify, of a segment that was set aside, is good, and has no other
// copy:
//
//  1. append its number with the sign of taking back to the extent's list, in one
//     write: readers that look at the hour now see the segment
//  2. fdatasync of the list, fsync of the hour's directory
//  3. append a line to changes that adds the segment: readers in all processes and
//     followers see it again. A line that is missing, after a crash, costs readers
//     half a minute, and followers the next comparison
//
// Verify (verify.go) publishes stream.json or its copy where one is damaged, clears
// what is no record in changes, or begins that anew where its header is damaged, and
// then reads everything, extent by extent, and for each extent:
//
//  1. a damaged line in the list of segments set aside: publish the list without it.
//     The segment is shown again, found bad again (step 3), and set aside again
//  2. an init segment that is bad: write it back, in place, from another extent that
//     has the same; without one every segment of the extent is bad
//  3. each segment in turn: set it aside if it is bad; take it back if it was set aside
//     and is good; if it is good and its header
//     box is not what the index says, write the box back, in place. Segments that
//     neither the index nor a header tells of any more, and those beyond the end of
//     a file that was cut, are set aside too, so that they are told of once
//  4. the index: write its header and the records that are bad back, in place; they
//     follow from the extent, but for the time of arrival, which is taken from the
//     record before. Publish it where it is gone
//
// At last it reads the salvage and removes entries that are bad, as Store.Remove does.
//
// A write in place that is cut leaves what was there before: bytes that their guard
// refuses, which readers pass over and the next pass writes. It never goes beyond
// the end of an extent. What a writer may be about to append (the end of an extent
// or an index) is left alone for ten minutes after the last write. An index whose
// extent is gone is told of, and removed. FORMAT.md says what guards each byte.
//
// # Why changes is not rewritten
//
// To rewrite it while other processes append, a pruner would have to publish a new
// file, and every writer to look after each append whether its file is still the
// one of that name, and cursors would need translating. Freeing the blocks of a
// prefix (FALLOC_FL_PUNCH_HOLE) needs none of that. Where a file system cannot do
// it (NFS before 4.2) the lines stay on disk: 24 bytes a segment, with 4 s
// segments 190 MB in a year.
//
// # A power cut
//
// costs at most what was written since the last sync, and the peer heals it: a test
// cuts the power (fsx.Volatile) in random sequences of everything above. An
// extent or index may then be short, or end in zeros; readers pass over both, and
// bytes that are not what their identity says are found by Media.Read.
package archive

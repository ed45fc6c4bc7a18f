package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/serve"
)

// shownGaps is how many gaps of a stream are shown.
const shownGaps = 20

// details are all that is known of one stream, for people.
type details struct {
	p   paint
	now time.Time
	out []string
}

// streamLines are the details of a stream and its newest gaps.
func streamLines(st *serve.NodeStatus, s *serve.StreamStatus, gaps *serve.Gaps, p paint, now time.Time) []string {
	d := &details{p: p, now: now}
	state := p.good("healthy")
	if !s.Healthy {
		state = p.bad("not healthy")
	}
	d.add("%s on %s: %s, %s", p.bold(printable(s.Name)), printable(st.Host), p.mode(s, modeOf(s)), state)
	for _, text := range s.Problems {
		d.add("%s %s", p.bad("!"), printable(text))
	}
	d.inputs(s)
	d.archive(&s.Archive)
	d.peers(s)
	d.backfill(s.Backfill)
	d.gaps(gaps)
	return d.out
}

func (d *details) add(format string, args ...any) {
	d.out = append(d.out, strings.TrimRight(fmt.Sprintf(format, args...), " "))
}

// head begins a part.
func (d *details) head(name string) {
	d.out = append(d.out, "")
	d.add("%s", d.p.bold(name))
}

// field adds a line with a name, unless there is nothing to say.
func (d *details) field(name, text string) {
	if text != "" {
		d.add("  %-9s %s", name, printable(text))
	}
}

// when is a time for people, with how long ago it was.
func (d *details) when(t *time.Time) string {
	if t == nil {
		return ""
	}
	ago := d.now.Sub(*t)
	if ago < 0 {
		return t.UTC().Format(time.DateTime) + " UTC, in " + near(-ago)
	}
	return t.UTC().Format(time.DateTime) + " UTC, " + near(ago) + " ago"
}

func (d *details) inputs(s *serve.StreamStatus) {
	if len(s.Inputs) == 0 {
		return
	}
	d.head("Inputs (* is recorded)")
	for i := range s.Inputs {
		in := &s.Inputs[i]
		mark, state := " ", in.State
		if in.Active {
			mark = "*"
		}
		switch in.State {
		case "good":
			state = d.p.good(state)
		case "waiting":
			state = d.p.warn(state)
		default:
			state = d.p.bad(state)
		}
		line := fmt.Sprintf("%s %s: %s", mark, printable(in.Name()), state)
		if in.Standby != "" {
			line += ", " + in.Standby + " standby"
		}
		d.add("%s", line)
		if in.Error != "" {
			d.add("    %s", printable(in.Error))
		}
		if in.Since != nil {
			d.add("    good since %s", d.when(in.Since))
		} else if in.LastData != nil {
			d.add("    last heard %s", d.when(in.LastData))
		}
		d.add("    %s", counts(in))
	}
}

// counts is what an input has brought and lost.
func counts(in *serve.InputStatus) string {
	out := archive.NearBytes(in.Bytes) + " received"
	for _, c := range []struct {
		n         int64
		one, more string
	}{
		{lostAt(in), "packet lost", "packets lost"}, {in.Errored, "marked as wrong", ""}, {in.Recovered, "recovered", ""},
		{in.Dropped, "dropped by the kernel", ""}, {in.Errors, "error", "errors"}, {in.Reconnects, "time opened anew", "times opened anew"},
		{in.Damaged, "damaged segment", "damaged segments"}, {in.Unwritten, "segment that the disk was too slow for", "segments that the disk was too slow for"},
	} {
		switch {
		case c.n > 1 && c.more != "":
			out += fmt.Sprintf(", %d %s", c.n, c.more)
		case c.n > 0:
			out += fmt.Sprintf(", %d %s", c.n, c.one)
		}
	}
	if in.ClockError != 0 {
		out += fmt.Sprintf(", clock differs from a peer's by %.1f s", in.ClockError)
	}
	return out
}

func (d *details) archive(a *serve.ArchiveStatus) {
	d.head("Archive")
	d.field("in", a.Dir)
	d.field("error", a.Error)
	s := &serve.StreamStatus{Archive: *a}
	if a.Oldest != nil && a.Newest != nil {
		d.field("covers", fmt.Sprintf("%s to %s UTC: %s, %s behind", a.Oldest.UTC().Format(time.DateTime), a.Newest.UTC().Format(time.DateTime), coversOf(s), behind(s)))
	} else {
		d.field("covers", "nothing yet")
	}
	size := fmt.Sprintf("%s in %s, %s", archive.NearBytes(a.Bytes), count(a.Segments, "segment"), bitrate(a.BytesPerSec))
	if a.SizeLimit > 0 {
		size += ", at most " + archive.NearBytes(a.SizeLimit)
	}
	d.field("size", size)
	disk := diskOf(s)
	if a.DaysUntilFull != nil && a.DiskFree > 0 {
		disk += ", " + archive.NearBytes(a.DiskFree) + " free"
	}
	if a.MinFree > 0 {
		disk += ", to leave " + archive.NearBytes(a.MinFree)
	}
	d.field("disk", disk)
	d.field("gaps", gapsOf(s))
	damage := damageOf(s)
	if a.Partial > 0 {
		damage += fmt.Sprintf(", %d partial", a.Partial)
	}
	d.field("damaged", damage)
	if a.Kept > 0 {
		d.field("kept", count(a.Kept, "span"))
	}
	d.verify(&a.Verify)
	d.salvage(&a.Salvage)
}

// bitrate is a number of bytes a second as people say it.
func bitrate(bytes float64) string {
	switch bits := 8 * bytes; {
	case bits >= 1e6:
		return fmt.Sprintf("%.1f Mbit/s", bits/1e6)
	default:
		return fmt.Sprintf("%.0f kbit/s", bits/1e3)
	}
}

func (d *details) verify(v *serve.VerifyStatus) {
	text := "never ended yet"
	if v.Ended != nil {
		text = "ended " + d.when(v.Ended)
	}
	if v.Running {
		text = "running"
		if v.At != nil {
			text += ", has come to " + v.At.UTC().Format(time.DateTime) + " UTC"
		}
	}
	text += fmt.Sprintf("; %d bad", v.Bad)
	if v.Aside > 0 {
		text += fmt.Sprintf(", %d still bad from before", v.Aside)
	}
	if v.Due != nil && !v.Running {
		text += "; next " + d.when(v.Due)
	}
	if v.Error != "" {
		text += "; broke off: " + v.Error
	}
	d.field("verify", text)
}

func (d *details) salvage(v *serve.SalvageStatus) {
	if v.Limit == 0 && v.Entries == 0 {
		return
	}
	text := fmt.Sprintf("packets of %s that are not whole and clean, %s of %s, for %s", count(v.Entries, "segment"), archive.NearBytes(v.Bytes), archive.NearBytes(v.Limit), near(secondsOf(v.Age)))
	if v.Dropped > 0 {
		text += fmt.Sprintf("; %d dropped, the disk was too slow or too full", v.Dropped)
	}
	if v.Error != "" {
		text += "; " + v.Error
	}
	d.field("salvage", text)
}

func (d *details) peers(s *serve.StreamStatus) {
	if len(s.Peers) == 0 {
		return
	}
	d.head("Peers")
	for i := range s.Peers {
		p := &s.Peers[i]
		state := d.p.good("reachable")
		if !p.Reachable {
			state = d.p.bad("out of reach")
		}
		if p.Mode != "" {
			state += ", " + printable(p.Mode) + " there"
		}
		if !p.Replicates {
			state += ", live only"
		}
		d.add("  %s: %s", printable(p.URL), state)
		if p.Error != "" {
			d.add("    %s", printable(p.Error))
		}
		if !p.Reachable && p.Heard != nil {
			d.add("    last heard %s", d.when(p.Heard))
		}
		d.add("    %s", backlogAt(p))
		if p.Segments+p.Copied+p.Mended > 0 {
			d.add("    brought %s and %s, %d merged out of packets", count(int(p.Segments), "segment"), archive.NearBytes(p.Bytes), p.Mended)
		}
	}
}

// backlogAt is what is to be fetched from a peer.
func backlogAt(p *serve.PeerStatus) string {
	text := "nothing to fetch"
	if p.Backlog > 0 {
		text = archive.NearBytes(p.Backlog) + " to fetch"
		if p.BacklogSeconds > 0 {
			text += ", " + near(secondsOf(p.BacklogSeconds)) + " of media"
		}
		if p.ETA != nil {
			text += ", " + near(secondsOf(*p.ETA)) + " left"
		}
	} else if p.Reconciling {
		text = "archives are being compared"
	}
	if p.Pending > 0 && p.Lag > listedLate {
		text += fmt.Sprintf("; %d listed, the oldest %s ago", p.Pending, near(secondsOf(p.Lag)))
	}
	if p.Unfilled > 0 {
		text += fmt.Sprintf("; %d segments could not be had", p.Unfilled)
	}
	return text
}

func (d *details) backfill(b *serve.Backfill) {
	if b == nil {
		return
	}
	d.head("Backfill that was asked for")
	d.add("  %s to %s: %s, %s and %s so far", b.From, b.To, b.State, count(b.Segments, "segment"), archive.NearBytes(b.Bytes))
	if b.LeftBytes > 0 {
		left := fmt.Sprintf("  %s to come from %s", archive.NearBytes(b.LeftBytes), printable(b.Peer))
		if b.ETA != nil {
			left += ", " + near(secondsOf(*b.ETA)) + " left"
		}
		d.add("%s", left)
	}
	if b.Error != "" {
		d.add("  %s", printable(b.Error))
	}
}

// fills says in words whether a gap can be filled.
var fills = map[string]string{
	serve.FillPeer: "a peer has it", serve.FillAsked: "a peer has it, fetched when asked for", serve.Filling: "being filled", serve.FillNobody: "nobody has it", serve.FillUnknown: "no peer could be asked",
}

func (d *details) gaps(g *serve.Gaps) {
	if g == nil || len(g.Gaps) == 0 {
		return
	}
	name := "Gaps"
	if g.More {
		name = fmt.Sprintf("Gaps, the last %d", len(g.Gaps))
	}
	d.head(name)
	for i := range g.Gaps {
		x := &g.Gaps[i]
		fill := fills[x.Fill]
		switch {
		case x.Fill == serve.FillNobody:
			fill = d.p.bad(fill)
		case x.Peer != "":
			fill += fmt.Sprintf(" (%s of it at %s)", near(secondsOf(x.PeerSeconds)), printable(x.Peer))
		}
		d.add("  %s  %-7s %s; %s", x.From, near(secondsOf(x.Seconds)), printable(x.Cause.Msg), fill)
	}
	for _, p := range g.Peers {
		if p.Error != "" {
			d.add("  %s could not be asked: %s", printable(p.URL), printable(p.Error))
		}
	}
}

package salvage

// Join makes one Copy of copies that follow each other, without doubled packets:
// copies[i] is that of entries[i], of a peer or of a Store, and its holes are
// taken from the entry. ErrApart says that they do not follow each other.
func Join(entries []Entry, copies []*Copy) (*Copy, error) {
	from, to, err := stretch(entries)
	if err != nil {
		return nil, err
	}
	c := &Copy{Packets: make([]byte, (to-from)*PacketSize), Holes: joinHoles(entries)}
	for i := range entries {
		if i >= len(copies) || copies[i].Len() != entries[i].Len() {
			return nil, ErrApart
		}
		copy(c.Packets[(entries[i].From-from)*PacketSize:], copies[i].Packets)
	}
	return c, nil
}

// stretch is the packets that entries which follow each other have.
func stretch(entries []Entry) (from, to int64, err error) {
	for i := range entries {
		e := &entries[i]
		if i == 0 {
			from, to = e.From, e.To
		} else if !e.Follows(&entries[i-1]) {
			return 0, 0, ErrApart
		}
		to = max(to, e.To)
	}
	if to-from < 1 || to-from > MaxPackets {
		return 0, 0, ErrApart
	}
	return from, to, nil
}

// joinHoles are the holes of entries that follow each other, each once.
func joinHoles(entries []Entry) []Hole {
	var out []Hole
	last := int64(-1)
	for i := range entries {
		e := &entries[i]
		for _, h := range e.Holes {
			if at := e.From + int64(h.At); at > last {
				out = append(out, Hole{At: int(at - entries[0].From), Missing: h.Missing})
				last = at
			}
		}
	}
	return out
}

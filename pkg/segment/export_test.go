package segment

// SalvageAll has the packets of clean segments kept too.
func SalvageAll(s *Segmenter) { s.kept.all = true }

// KeptPackets is how many packets of the run were of the program.
func KeptPackets(s *Segmenter) int64 { return s.kept.n }

// WritePacket writes one packet that is in its place.
func WritePacket(s *Segmenter, p []byte) { s.dmx.WritePackets(p) }

// HeldPackets is how many packets of the program are in memory.
func HeldPackets(s *Segmenter) int64 { return s.kept.n - s.kept.first }

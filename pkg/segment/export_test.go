package segment

// SalvageAll has the packets of clean segments kept too.
func SalvageAll(s *Segmenter) { s.kept.all = true }

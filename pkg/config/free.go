package config

// ParsePercent reads a whole percentage from 1% to 99%; the sign may be left
// out.
func ParsePercent(s string) (int, error) { return parsePercent(s) }

// ParseFree reads how much of a volume is to stay free: a size (ParseSize) or a
// percentage (ParsePercent, with its sign).
func ParseFree(s string) (Free, error) {
	if isPercent(s) {
		n, err := parsePercent(s)
		return Free{Percent: n}, err
	}
	n, err := ParseSize(s)
	return Free{Bytes: n}, err
}

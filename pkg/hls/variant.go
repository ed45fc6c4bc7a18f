package hls

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// firstBandwidth is the least number that Choose takes for a bandwidth and not
// for an index.
const firstBandwidth = maxVariants

var resolutionForm = regexp.MustCompile(`^[1-9][0-9]{0,5}x[1-9][0-9]{0,5}$`)

// CheckChoice says what is wrong with the text of a choice.
func CheckChoice(choice string) error {
	if _, err := strconv.ParseUint(choice, 10, 31); err == nil || choice == "" || resolutionForm.MatchString(choice) {
		return nil
	}
	return fmt.Errorf("variant=%.60s: want an index from 0, a bandwidth in bit/s or a resolution such as 1280x720", choice)
}

// Choose returns a variant: with an empty choice the one of the highest
// bandwidth; with a number below 1000 the one at this place, from 0; with a
// larger number the one of the highest bandwidth not above it; with a
// resolution the one of the highest bandwidth of those that have it. The first
// listed wins among equals.
func (m *Master) Choose(choice string) (*Variant, error) {
	if err := CheckChoice(choice); err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(choice)
	number := err == nil
	if number && n < firstBandwidth {
		if n < len(m.Variants) {
			return &m.Variants[n], nil
		}
		return nil, m.none(choice)
	}
	var best *Variant
	for k := range m.Variants {
		v := &m.Variants[k]
		if number && v.Bandwidth > n || !number && choice != "" && v.Resolution != choice {
			continue
		}
		if best == nil || v.Bandwidth > best.Bandwidth {
			best = v
		}
	}
	if best == nil {
		return nil, m.none(choice)
	}
	return best, nil
}

func (m *Master) none(choice string) error {
	var list []string
	for k, v := range m.Variants {
		if k == 20 {
			list = append(list, "…")
			break
		}
		list = append(list, strings.TrimSpace(fmt.Sprintf("%d: %d bit/s %s", k, v.Bandwidth, v.Resolution)))
	}
	return fmt.Errorf("no variant=%s; there are %s", choice, strings.Join(list, ", "))
}

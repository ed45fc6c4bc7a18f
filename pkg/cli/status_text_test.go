package cli

import "testing"

func TestDaysText(t *testing.T) {
	for days, want := range map[float64]string{
		0.00001:  "1 minute",
		0.02:     "29 minutes",
		1.0 / 12: "2 hours",
		0.4:      "10 hours",
		0.99:     "24 hours",
		1:        "1.0 days",
		12.34:    "12.3 days",
	} {
		if got := daysText(days); got != want {
			t.Errorf("%v days: %q, want %q", days, got, want)
		}
	}
}

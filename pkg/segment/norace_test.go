//go:build !race

package segment_test

// less divides the number of runs of a test.
const less = 1

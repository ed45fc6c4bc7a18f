package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

// row is one measurement.
type row struct {
	What      string  `json:"what"` // udp or file
	Recorder  string  `json:"recorder"`
	Streams   int     `json:"streams"`
	Seconds   float64 `json:"seconds"`    // of recording
	Bytes     int64   `json:"bytes"`      // recorded
	User      float64 `json:"cpu_user"`   // s, of all processes from start to end
	System    float64 `json:"cpu_system"` // s
	CPUPerGB  float64 `json:"cpu_per_gb"` // s per 1e9 recorded bytes
	PeakBytes int64   `json:"peak_bytes"` // of all processes together
	Lost      int64   `json:"lost"`
	Unit      string  `json:"lost_unit"`
	SenderCPU float64 `json:"sender_cpu,omitempty"` // s
	// The lowest and the highest CPUPerGB, where there were several runs.
	Lowest  float64 `json:"cpu_per_gb_lowest,omitempty"`
	Highest float64 `json:"cpu_per_gb_highest,omitempty"`
}

func (r *row) use(u usage) { r.User, r.System = u.user.Seconds(), u.system.Seconds() }

func (r row) String() string {
	r.finish()
	return fmt.Sprintf("%s %d %s: %.2f CPU s/GB, %.1f MB a stream, %d %s lost", r.What, r.Streams, r.Recorder,
		r.CPUPerGB, float64(r.PeakBytes)/1e6/float64(r.Streams), r.Lost, r.Unit)
}

func (r *row) finish() {
	if r.Bytes > 0 {
		r.CPUPerGB = (r.User + r.System) / (float64(r.Bytes) / 1e9)
	}
}

// report is what the command gives.
type report struct {
	Machine string `json:"machine"`
	CPUs    int    `json:"cpus"`
	Kernel  string `json:"kernel"`
	Go      string `json:"go"`
	FFmpeg  string `json:"ffmpeg"` // version, or that it is missing
	Bitrate int64  `json:"bitrate"`
	Runs    int    `json:"runs"`
	Rows    []row  `json:"rows"`
}

func newReport(b *bench) *report {
	r := &report{CPUs: runtime.NumCPU(), Go: runtime.Version(), Bitrate: b.bitrate, Runs: b.runs, FFmpeg: "missing"}
	if b.ffmpeg != "" {
		out, _ := exec.Command(b.ffmpeg, "-version").Output()
		if f := strings.Fields(string(out)); len(f) > 2 {
			r.FFmpeg = f[2]
		}
	}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if k, v, _ := strings.Cut(line, ":"); strings.TrimSpace(k) == "model name" {
				r.Machine = strings.TrimSpace(v)
			}
		}
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		r.Kernel = strings.TrimSpace(string(release))
	}
	return r
}

// add adds the median of some runs of one measurement, by CPU time; of losses,
// the most.
func (r *report) add(rows []row) {
	for i := range rows {
		rows[i].finish()
	}
	slices.SortFunc(rows, func(a, b row) int {
		switch {
		case a.CPUPerGB < b.CPUPerGB:
			return -1
		case a.CPUPerGB > b.CPUPerGB:
			return 1
		}
		return 0
	})
	m := rows[len(rows)/2]
	for _, x := range rows {
		m.Lost = max(m.Lost, x.Lost)
	}
	if len(rows) > 1 {
		m.Lowest, m.Highest = rows[0].CPUPerGB, rows[len(rows)-1].CPUPerGB
	}
	r.Rows = append(r.Rows, m)
}

// print writes the table.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "%s, %d CPUs, Linux %s, %s, ffmpeg %s; streams of %.1f Mbit/s; runs: %d\n\n",
		r.Machine, r.CPUs, r.Kernel, r.Go, r.FFmpeg, float64(r.Bitrate)/1e6, r.Runs)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "input\tstreams\trecorder\tCPU s/GB\tspread\tuser\tsystem\tMB a stream\tlost\tseconds\tMB/s\t")
	for _, x := range r.Rows {
		spread := "-"
		if x.Highest > 0 {
			spread = fmt.Sprintf("%.2f–%.2f", x.Lowest, x.Highest)
		}
		gb := float64(x.Bytes) / 1e9
		fmt.Fprintf(t, "%s\t%d\t%s\t%.2f\t%s\t%.2f\t%.2f\t%.1f\t%d %s\t%.1f\t%.0f\t\n", x.What, x.Streams, x.Recorder,
			x.CPUPerGB, spread, x.User/gb, x.System/gb, float64(x.PeakBytes)/1e6/float64(x.Streams), x.Lost, x.Unit,
			x.Seconds, gb*1000/x.Seconds)
	}
	t.Flush()
}

// save writes the report as JSON.
func (r *report) save(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

package main

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// chart is a plot of one metric against the cases of a measurement, with a line
// for each contender.
type chart struct {
	file   string
	title  string
	table  string
	metric string
	x, y   string  // titles of the axes, with units
	total  bool    // a value is multiplied with the case's number
	log    bool    // both axes are logarithmic
	right  bool    // there is room for the legend on the right
	limit  float64 // what has to be reached; 0: nothing
}

var charts = []chart{
	{file: "cpu.svg", title: "CPU time of recording UDP", table: "udp", metric: cpuPerGB.name, log: true, right: true,
		x: "streams of 6 Mbit/s", y: "CPU time, s per GB recorded", limit: 4},
	{file: "memory.svg", title: "Memory of recording UDP", table: "udp", metric: perStream.name, total: true,
		x: "streams of 6 Mbit/s", y: "memory, MB", limit: 12},
	{file: "diff.svg", title: "diff-archive of two equal archives", table: "diff", metric: "time", log: true,
		x: "length of the archives, days of 4 s segments", y: "time, ms"},
}

// plots draws what the report has, into a directory.
func (r *report) plots(dir string) error {
	for _, c := range charts {
		i := slices.IndexFunc(r.Tables, func(t *table) bool { return t.Name == c.table })
		if i < 0 {
			continue
		}
		lines := c.lines(r.Tables[i])
		if len(lines) == 0 {
			continue
		}
		svg, err := c.draw(lines)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, c.file), svg, 0o644)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.file, err)
		}
	}
	return nil
}

// line is one contender's points, with the spread of each.
type line struct {
	who string
	plotter.XYs
	plotter.YErrors
}

// lines are those of the cases that are nothing but a number ("30 days", and not
// "30 days, 1000 segments differ").
func (c chart) lines(t *table) []*line {
	var list []*line
	for _, r := range t.Rows {
		if strings.Contains(r.Case, ",") {
			continue
		}
		i := slices.IndexFunc(r.Values, func(v value) bool { return v.Metric == c.metric })
		if i < 0 {
			continue
		}
		k := slices.IndexFunc(list, func(l *line) bool { return l.who == r.Who })
		if k < 0 {
			k = len(list)
			list = append(list, &line{who: r.Who})
		}
		factor := 1.0
		if c.total {
			factor = r.X
		}
		v := r.Values[i]
		l := list[k]
		l.XYs = append(l.XYs, plotter.XY{X: r.X, Y: v.Value * factor})
		l.YErrors = append(l.YErrors, struct{ Low, High float64 }{(v.Value - v.Lowest) * factor, (v.Highest - v.Value) * factor})
	}
	most := 0
	for _, l := range list {
		most = max(most, len(l.XYs))
	}
	return slices.DeleteFunc(list, func(l *line) bool { return len(l.XYs) == 1 && most > 1 })
}

// Colours that differ in brightness too (Okabe and Ito), and shapes that differ.
var (
	colours = []color.Color{color.RGBA{0, 114, 178, 255}, color.RGBA{213, 94, 0, 255}, color.RGBA{0, 158, 115, 255}, color.RGBA{204, 121, 167, 255}, color.RGBA{86, 90, 96, 255}}
	shapes  = []draw.GlyphDrawer{draw.CircleGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{}, draw.CrossGlyph{}, draw.PlusGlyph{}}
	faint   = color.RGBA{190, 190, 190, 255}
)

// draw draws a chart as SVG.
func (c chart) draw(lines []*line) ([]byte, error) {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.title, c.x, c.y
	p.Title.Padding = vg.Points(8)
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = faint, faint
	p.Add(grid)
	for i, l := range lines {
		if err := l.add(p, colours[i%len(colours)], shapes[i%len(shapes)]); err != nil {
			return nil, err
		}
	}
	if err := c.axes(p, lines); err != nil {
		return nil, err
	}
	p.Legend.Top, p.Legend.Left, p.Legend.XOffs = true, true, vg.Points(8)
	if c.right {
		p.Legend.XOffs = vg.Points(330)
	}
	canvas := vgsvg.New(17*vg.Centimeter, 10*vg.Centimeter)
	p.Draw(draw.Crop(draw.New(canvas), 4, -14, 4, -6))
	var b bytes.Buffer
	_, err := canvas.WriteTo(&b)
	return themed(b.Bytes()), err
}

// add draws a line.
func (l *line) add(p *plot.Plot, colour color.Color, shape draw.GlyphDrawer) error {
	drawn, points, err := plotter.NewLinePoints(l.XYs)
	if err != nil {
		return err
	}
	bars, err := plotter.NewYErrorBars(l)
	if err != nil {
		return err
	}
	drawn.Color, drawn.Width = colour, vg.Points(1.5)
	points.Color, points.Shape, points.Radius = colour, shape, vg.Points(3)
	bars.Color = colour
	p.Add(drawn, points, bars)
	p.Legend.Add(l.who, drawn, points)
	return nil
}

// axes sets the scales, and draws what has to be reached.
func (c chart) axes(p *plot.Plot, lines []*line) error {
	var x []float64
	least := math.Inf(1)
	for _, l := range lines {
		for i, xy := range l.XYs {
			x = append(x, xy.X)
			if low := xy.Y - l.YErrors[i].Low; low > 0 {
				least = min(least, low)
			}
		}
	}
	p.X.Min, p.X.Max = slices.Min(x), slices.Max(x)
	if !c.log {
		p.X.Min = 0
	}
	p.X.Max = max(p.X.Max, p.X.Min+1) // there may be a single case
	if c.limit > 0 {
		least = min(least, c.limit)
		if err := c.reach(p); err != nil {
			return err
		}
	}
	p.Y.Min, p.Y.Max = 0, p.Y.Max*1.05
	if c.log {
		p.X.Scale, p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogScale{}, plot.TickerFunc(decades)
		p.Y.Min = least / 1.2
	}
	p.X.Tick.Marker = cases(p, x)
	return nil
}

// reach draws what has to be reached.
func (c chart) reach(p *plot.Plot) error {
	at := func(x float64) plotter.XY {
		if c.total {
			return plotter.XY{X: x, Y: c.limit * x}
		}
		return plotter.XY{X: x, Y: c.limit}
	}
	l, err := plotter.NewLine(plotter.XYs{at(p.X.Min), at(p.X.Max)})
	if err != nil {
		return err
	}
	l.Dashes = []vg.Length{vg.Points(4), vg.Points(3)}
	p.Add(l)
	p.Legend.Add("to reach", l)
	return nil
}

// decades marks 1, 2, 5, 10, 20, 50 and so on.
func decades(low, high float64) []plot.Tick {
	var list []plot.Tick
	for tens := math.Pow(10, math.Floor(math.Log10(low))); tens <= high; tens *= 10 {
		for _, n := range []float64{1, 2, 5} {
			if v := n * tens; v >= low && v <= high {
				list = append(list, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'f', -1, 64)})
			}
		}
	}
	return list
}

// cases marks what was measured on the x axis, leaving out what would overlap.
func cases(p *plot.Plot, at []float64) plot.Ticker {
	at = slices.Compact(slices.Sorted(slices.Values(at)))
	var list plot.ConstantTicks
	last := -1.0
	for _, x := range at {
		t := plot.Tick{Value: x}
		if where := p.X.Norm(x); where-last > 0.03 || last < 0 {
			t.Label, last = strconv.FormatFloat(x, 'f', -1, 64), where
		}
		list = append(list, t)
	}
	return list
}

// themed makes a drawing follow the reader's choice of light or dark, and have
// fonts that the reader has.
func themed(svg []byte) []byte {
	svg = bytes.ReplaceAll(svg, []byte("font-family:Liberation Sans"), []byte("font-family:Liberation Sans,Arial,sans-serif"))
	const style = "<style>@media (prefers-color-scheme:dark){svg{filter:invert(.88) hue-rotate(180deg)}}</style>\n"
	return bytes.Replace(svg, []byte("<g transform"), []byte(style+"<g transform"), 1)
}

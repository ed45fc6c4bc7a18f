#!/bin/sh
# Makes pkg/testsrc/clip.ts, the clip that `twindvr testsrc` loops, with ffmpeg's
# own test sources. The clip is part of the project; run this only to change it:
# another version of ffmpeg or x264 makes other bytes.
#
# The clip is 8 s long, which is a whole number of video frames (200 of 40 ms),
# of GOPs (4 of 2 s) and of AAC frames (375 of 1024/48000 s), so that it loops
# without a seam. Its GOPs are closed and hold two B-frames in a row; the
# picture shows a running clock and the tone beeps each second.
set -eu
cd "$(dirname "$0")/.."
command -v ffmpeg >/dev/null || { echo "make-clip.sh: ffmpeg is missing; apt-get install ffmpeg" >&2; exit 2; }
out=pkg/testsrc/clip.ts
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

ff() { ffmpeg -hide_banner -loglevel error -y -threads 1 "$@"; }
exact='-flags +bitexact -fflags +bitexact'

ff -f lavfi -i testsrc2=size=640x360:rate=25 -frames:v 200 -c:v libx264 -preset veryslow -profile:v high \
	-pix_fmt yuv420p -b:v 230k -maxrate 400k -bufsize 400k \
	-x264-params keyint=50:min-keyint=50:scenecut=0:bframes=2:b-adapt=0:b-pyramid=none:open-gop=0:threads=1 \
	-bsf:v filter_units=remove_types=6 $exact -f mpegts "$tmp/video.ts"
# The encoder's first two frames, its priming and the fade from it, are left out.
ff -f lavfi -i sine=frequency=440:beep_factor=4:sample_rate=48000:samples_per_frame=1024 \
	-af aformat=channel_layouts=stereo,atrim=duration=8.1 -c:a aac -b:a 64k $exact -f adts "$tmp/long.aac"
ff -i "$tmp/long.aac" -c copy -bsf:a "noise=drop='lt(n\,2)+gte(n\,377)'" $exact -f adts "$tmp/audio.aac"
ff -i "$tmp/video.ts" -i "$tmp/audio.aac" -map 0:v -map 1:a -c copy $exact -f mpegts "$tmp/clip.ts"

frames=$(ffprobe -v error -count_packets -show_entries stream=nb_read_packets -of csv=p=0 "$tmp/clip.ts" | head -2 | tr -d ' \n,')
[ "$frames" = 200375 ] || { echo "make-clip.sh: the clip has $frames video and audio frames, not 200 and 375" >&2; exit 2; }
mv "$tmp/clip.ts" "$out"
ls -l "$out"

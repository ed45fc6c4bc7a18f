#!/bin/sh
# Makes the elementary streams of this directory from ffmpeg's test sources.
# The files in the repository are the reference: another ffmpeg may write others.
set -eu
cd "$(dirname "$0")"
v="-f lavfi -i testsrc2=s=96x64:r=25:d=2 -pix_fmt yuv420p -aspect 16:9"
ffmpeg -v error -y $v -c:v libx264 -g 25 -bf 2 -x264opts keyint=25:scenecut=0 -crf 40 \
	-colorspace bt709 -color_primaries bt709 -color_trc bt709 -bsf:v filter_units=remove_types=6 clip.h264
ffmpeg -v error -y $v -c:v libx265 -x265-params keyint=25:min-keyint=25:log-level=none:info=0:crf=40 clip.hevc
ffmpeg -v error -y $v -c:v mpeg2video -g 25 -bf 2 -q:v 30 clip.m2v
for c in aac:adts:aac mp2:mp2:mp2 ac3:ac3:ac3 eac3:eac3:eac3; do
	IFS=: read -r encoder format name <<END
$c
END
	ffmpeg -v error -y -f lavfi -i sine=f=440:r=48000:d=2 -ac 2 -b:a 64k -c:a "$encoder" -f "$format" "clip.$name"
done

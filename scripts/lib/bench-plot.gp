# What scripts/bench-plot.sh draws: of the lines "name MiB wall CPU RSS bytes" of the file `table`, into the file `output`.
set terminal svg size 1000,760 font "sans-serif,13" background "white"
set output output
names = "whole delta oras dd rauc swupdate"
titles = "'apply, all new' 'apply, 1 MiB new' 'oras pull; sync -f' 'curl | openssl; dd' 'rauc install' 'swupdate'"
set logscale xy
set grid
set xlabel "size of the release, MiB"
set xtics ("16" 16, "64" 64, "256" 256, "1024" 1024)
set key left top reverse Left samplen 2 font ",11"
set style data linespoints
of(name) = sprintf("< awk '$1 == \"%s\"' %s", name, table)
set multiplot layout 2,2
set ylabel "wall time, s"
plot for [i = 1:words(names)] of(word(names, i)) using 2:3 lw (i < 3 ? 3 : 1.5) pt i title word(titles, i)
unset key
set ylabel "CPU time, s"
plot for [i = 1:words(names)] of(word(names, i)) using 2:4 lw (i < 3 ? 3 : 1.5) pt i
set ylabel "memory of the largest process, MiB"
plot for [i = 1:words(names)] of(word(names, i)) using 2:5 lw (i < 3 ? 3 : 1.5) pt i
set ylabel "bytes from the registry, MiB"
plot for [i = 1:words(names)] of(word(names, i)) using 2:($6 / 1048576) lw (i < 3 ? 3 : 1.5) pt i
unset multiplot

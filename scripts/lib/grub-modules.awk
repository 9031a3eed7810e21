# Which modules a GRUB configuration needs: prints "module NAME" for each, and "unknown WORD" for each command that
# this GRUB has not.
#
# awk -v optional='WORD...' -f grub-modules.awk command.lst crypto.lst CONFIG...
#
# GRUB's own lists say which module brings a command, or a hash. What is quoted, or has a variable in it, is no command
# that can be known here; keywords, functions of the configurations and what is in GRUB's kernel need no module.
# optional: commands that the configurations can do without.

BEGIN {
    start = 1
    n = split("if then elif else fi for in do done while until function { } set unset insmod", words, " ")
    for (i = 1; i <= n; i++) inside[words[i]] = 1
    n = split("if then elif else do while until {", words, " ")
    for (i = 1; i <= n; i++) before[words[i]] = 1
    n = split(optional, words, " ")
    for (i = 1; i <= n; i++) may_lack[words[i]] = 1
}

FILENAME == ARGV[1] {
    name = $1
    sub(/^\*/, "", name)
    sub(/:$/, "", name)
    module_of[name] = $2
    next
}

FILENAME == ARGV[2] {
    name = tolower($1)
    sub(/:$/, "", name)
    hash_of[name] = $2
    next
}

{ read_line($0) }

# A word ends at a blank, and a command at a semicolon, a brace and, outside of quotes, a line's end.
function read_line(line,    i, c) {
    for (i = 1; i <= length(line); i++) {
        c = substr(line, i, 1)
        if (quote == "'") { if (c == "'") quote = ""; continue }
        if (c == "\\") { word = word "\001"; i++; if (i > length(line)) return; continue }
        if (quote == "\"") { if (c == "\"") quote = ""; continue }
        if (c == "'" || c == "\"") { quote = c; word = word "\001" }
        else if (c == "#" && word == "") break
        else if (c ~ /[ \t]/) end_word()
        else if (c == ";") { end_word(); start = 1 }
        else word = word c
    }
    if (quote == "") { end_word(); start = 1 }
}

function end_word() {
    if (word == "") return
    if (last == "function") own[word] = 1
    else if (last == "--hash" || last == "-h") hash(word)
    else if (start && word !~ /[\001$=]/ && !(word in inside)) use(word)
    if (word ~ /^--hash=/) hash(substr(word, 8))
    start = (word in before) && (start || word == "{")
    last = word
    word = ""
}

function use(name) {
    if (!(name in seen)) used[++count] = name
    seen[name] = 1
}

function hash(name) { hashes[++hash_count] = tolower(name) }

# In the order of first use: the same on every awk.
END {
    for (n = 1; n <= count; n++) {
        name = used[n]
        if (name in own) continue
        if (name in module_of) need(module_of[name])
        else if (!(name in may_lack)) print "unknown " name
    }
    if (!("hashsum" in seen)) exit
    for (n = 1; n <= hash_count; n++) {
        if (hashes[n] in hash_of) need(hash_of[hashes[n]])
        else print "unknown hashsum:" hashes[n]
    }
}

function need(module) {
    if (!(module in needed)) print "module " module
    needed[module] = 1
}

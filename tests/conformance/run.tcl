# Runs tests/test_helper.tcl of the suite, with additions that it has no option for: each test's name is printed when the
# test begins, and its tags; and with REDISHA_RESP3 set every client begins with HELLO 3.
#
# The suite starts its second process from [info script]. The text is evaluated here instead of sourced, so that this
# file is the second process as well.

fconfigure stdout -buffering line

proc announce {name element operation} {
    set state [set ${name}($element)]
    if {[regexp {^\(IN PROGRESS\) (.*)$} $state -> test]} {
        puts "\[testing\]: $test"
    }
}
trace add variable ::active_clients_task write announce

proc print_tags {} {
    rename test test_itself
    proc test {name code {okpattern undefined} {tags {}}} {
        puts "\[tags\]: $name\t[lsort -unique [concat $::tags $tags]]"
        uplevel 1 [list test_itself $name $code $okpattern $tags]
    }
}

proc speak_resp3 {} {
    rename redis redis_resp2
    proc redis {args} {
        set client [redis_resp2 {*}$args]
        # A server that wants a password first stays with RESP2 until the test asks for more.
        catch {
            $client hello 3
            if {[lindex $args 2] eq 1} {$client read}
        }
        return $client
    }
}

rename source source_file
proc source {path} {
    uplevel 1 [list source_file $path]
    if {$path eq "tests/support/test.tcl"} print_tags
    if {$path eq "tests/support/redis.tcl" && [info exists ::env(REDISHA_RESP3)]} speak_resp3
}

set file [open tests/test_helper.tcl]
set text [read $file]
close $file
eval $text

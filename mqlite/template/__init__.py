"""The template language of log formats and of personalized mail: MailerQ's, which is a small Smarty.

    scanner    text → pieces: plain text, and tags with their tokens
    parser     pieces → nodes; `compile_template` is the way in
    nodes      what is evaluated, within bounds
    modifiers  THE MODIFIER TABLE
    pattern    regular expressions in linear time
    values     what the values of JSON are as text, number and truth

    {$name} {$a.b[0]["c"]} {$name|toupper|truncate:20:"..."} {$price * 1.21}       shown
    {if $a == "x" and not $b > 3}…{elseif $c}…{else}…{/if}
    {foreach $item in $list}…{foreachelse}…{/foreach}   {foreach $list as $key => $value}…{/foreach}
    {assign $a + 1 to $b} {$b = $a + 1}
    {ldelim} {rdelim} {literal}…{/literal} {* comment *}    a brace before white space is a brace

Must not know: mail, logs, clocks. A template comes from whoever writes the configuration or publishes messages, its
values often from strangers; neither can make it run for long, or write without end.
"""
